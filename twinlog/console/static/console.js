// The console in the browser. Pages work without it; with it they are live.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const main = () => $("main");

  // --- times: a <time> says a moment; how long ago that is, is counted here.
  const two = (n) => String(n).padStart(2, "0");
  const clock = (at, now) => {
    const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
    const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
    return (at.toDateString() === now.toDateString() ? "" : day) + time + "." + String(at.getMilliseconds()).padStart(3, "0");
  };
  const lasting = (seconds) => {
    for (const [name, unit] of [["d", 86400], ["h", 3600], ["min", 60]])
      if (seconds >= 2 * unit) return `${Math.floor(seconds / unit)} ${name}`;
    return `${Math.floor(seconds)} s`;
  };
  const tell = (time, now) => {
    const at = new Date(time.dateTime || time.dataset.at), kind = time.dataset.time;
    const past = (now - at) / 1000;
    const text = kind === "at" ? clock(at, now)
      : kind === "ago" ? `${lasting(Math.max(0, past))} ago`
      : past > 0 ? `${lasting(past)} overdue` : `in ${lasting(-past)}`;
    if (time.textContent !== text) time.textContent = text;
  };
  const east = -new Date().getTimezoneOffset();
  const zone = "UTC" + (east ? (east < 0 ? "−" : "+") + Math.floor(Math.abs(east) / 60) + (east % 60 ? `:${two(Math.abs(east % 60))}` : "") : "");
  // Fields take times in the zone in which times are shown; a URL says them in UTC, and so means the same to everybody.
  const TYPED = /^(?:(\d{4}-\d\d-\d\d)(?:[ T]|$))?(\d\d?:\d\d(?::\d\d(?:\.\d{1,3})?)?)?$/, SENT = /^\d{4}-\d\d-\d\dT.*Z$/;
  const sent = (text) => {
    const [, day, time] = TYPED.exec(text.trim()) || [];
    if (!day && !time) return text;
    const today = clock(new Date(), new Date(0)).slice(0, 10);
    const at = new Date(`${day || today}T${/^\d:/.test(time) ? "0" : ""}${time || "00:00"}`);
    return isNaN(at) ? text : at.toISOString();
  };
  const written = (text) => {
    const at = new Date(text);
    return SENT.test(text) && !isNaN(at) ? clock(at, new Date()).replace(/(:00)?\.000$/, "") : text;
  };
  const inZone = (root) => {
    for (const label of root.querySelectorAll("[data-zone]")) label.textContent = `(${zone})`;
    for (const field of root.querySelectorAll("[data-moment]")) field.setAttribute("value", written(field.getAttribute("value")));
  };
  document.addEventListener("formdata", (event) => {
    for (const field of event.target.querySelectorAll("[data-moment]:enabled")) event.formData.set(field.name, sent(field.value));
  });
  const tellAll = () => {
    if (selecting()) return;
    const now = new Date();
    for (const time of document.querySelectorAll("[data-time]")) tell(time, now);
  };

  // --- morphing: makes what is shown equal to what has come, and touches nothing that is equal already.
  const KEPT = { INPUT: ["value", "checked"], TEXTAREA: ["value"], SELECT: [], OPTION: ["selected"], DETAILS: ["open"], DIALOG: ["open"] };
  const keyOf = (node) => node.nodeType === 1 ? node.id || null : null;
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  const sameTime = (a, b) => a.dataset.time && a.nodeName === b.nodeName && a.dataset.time === b.dataset.time && a.dateTime === b.dateTime && a.dataset.at === b.dataset.at;

  function morph(old, fresh) {
    if (old.nodeType !== 1) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (sameTime(old, fresh) || old.hasAttribute("data-keep") || old.isEqualNode(fresh)) return;
    const kept = (old.type !== "hidden" && KEPT[old.nodeName]) || [];
    for (const { name, value } of [...fresh.attributes])
      if (!kept.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes])
      if (!kept.includes(name) && !fresh.hasAttribute(name) && !name.startsWith("data-is-")) old.removeAttribute(name);
    if (old.nodeName === "TEXTAREA") return;
    if (old.hasAttribute("data-tail") && tailHolds(old, fresh)) return;
    children(old, fresh);
  }

  function children(old, fresh) {
    const byKey = new Map();
    for (const child of old.childNodes) if (keyOf(child)) byKey.set(child.id, child);
    const coming = new Set([...fresh.children].map(keyOf));
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      while (at && keyOf(at) && !coming.has(at.id)) { const gone = at; at = at.nextSibling; gone.remove(); }
      const known = keyOf(next) && byKey.get(next.id);
      const match = known || (at && alike(at, next) ? at : null);
      if (!match) { old.insertBefore(document.importNode(next, true), at); continue; }
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      alike(match, next) ? morph(match, next) : match.replaceWith(document.importNode(next, true));
    }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  }

  // --- a tail: new rows wait behind a button while somebody reads those that are there.
  let release = false;
  const reading = (tail) => window.scrollY > 60 || tail.matches(":hover") || tail.contains(document.activeElement) || !!tail.querySelector("details[open]");
  function tailHolds(old, fresh) {
    const there = new Set([...old.children].map(keyOf));
    const count = [...fresh.children].filter((row) => keyOf(row) && !there.has(row.id)).length;
    const button = document.querySelector("[data-tail-new]");
    const holds = count > 0 && !release && reading(old);
    if (button) {
      button.hidden = !holds;
      const text = `${count} new`;
      if (holds && button.lastElementChild.textContent !== text) button.lastElementChild.textContent = text;
    }
    return holds;
  }

  // --- the live stream: the parts that changed, in place. While something is selected, the newest waits.
  let stream, tag = document.body.dataset.live, live = !!tag, newest = null, heard = 0, wait = 500, again = 0;
  const selecting = () => {
    const selection = document.getSelection();
    return !!selection && !selection.isCollapsed && main().contains(selection.anchorNode);
  };
  function show() {
    if (newest === null) return;
    const held = selecting();
    $("held").hidden = !held;
    if (held) return;
    const fresh = new DOMParser().parseFromString(newest, "text/html");
    newest = null;
    const now = new Date();
    for (const time of fresh.querySelectorAll("[data-time]")) tell(time, now);
    inZone(fresh);
    for (const id of ["health", "main"]) if (fresh.getElementById(id)) morph($(id), fresh.getElementById(id));
    if (document.body.hasAttribute("data-still") && !main().querySelector("[data-waits]")) { live = false; close(); }
    document.dispatchEvent(new Event("shown"));
  }
  function lost() {
    if (!$("cut").hidden) return;
    $("cut-at").dateTime = new Date(heard).toISOString();
    tell($("cut-at"), new Date());
    $("cut").hidden = false;
  }
  const alive = () => { heard = Date.now(); wait = 500; $("cut").hidden = true; };
  function open() {
    hush();
    const url = new URL(location.href);
    url.searchParams.set("live", tag);
    url.hash = "";
    stream = new EventSource(url);
    heard = Date.now();
    stream.addEventListener("tick", alive);
    stream.addEventListener("page", (event) => { alive(); tag = event.lastEventId; newest = event.data; show(); });
    stream.onerror = () => { lost(); if (stream && stream.readyState === EventSource.CLOSED) later(); };
  }
  function hush() { clearTimeout(again); if (stream) stream.close(); stream = null; }
  function close() { hush(); greet(false); me = ""; }
  function later() { hush(); again = setTimeout(come, wait); wait = Math.min(wait * 2, 4000); }
  const watched = () => live && !document.body.hasAttribute("data-paused") && !document.hidden;
  const follow = () => { if (watched()) come(); else close(); };

  // --- many windows: a browser has six connections to a host, and a page would wait for the seventh. So the four that are
  // in sight for longest have a stream that stays open; the others take turns at one. Each tells the others that it is
  // there, and counts by itself: that works over plain http, too, where browsers have no locks.
  const SEATS = 4, MOST = 4000, TURN = 2000, GONE = 3500, others = new Map(), windows = new BroadcastChannel("windows");
  let me = "", coming = false;
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const greet = (here = true) => { if (me) windows.postMessage({ id: me, here }); };
  windows.onmessage = ({ data: { id, here } }) => {
    const known = others.has(id);
    if (here) others.set(id, Date.now()); else others.delete(id);
    if (here && !known) greet();
  };
  const before = () => {
    for (const [id, at] of others) if (Date.now() - at > GONE) others.delete(id);
    return [...others.keys()].filter((id) => id < me).length;
  };
  const itsTurn = () => Math.floor(Date.now() / TURN) % (others.size + 1 - SEATS) === before() - SEATS;
  async function come() {
    if (coming) return;
    coming = true;
    if (!me) {
      me = `${Date.now()} ${Math.random()}`;
      greet();
      await pause(100); // in which the others say that they are there
    }
    while (watched() && !stream) {
      if (before() < SEATS) { open(); break; }
      if (itsTurn()) {
        tag = ""; // whatever is new or not, one answer comes, which ends the turn
        open();
        await Promise.race([pause(MOST), new Promise((done) => document.addEventListener("shown", done, { once: true }))]);
        hush();
        await pause(TURN);
      } else await pause(150);
    }
    coming = false;
  }
  setInterval(() => {
    tellAll();
    greet();
    if (stream && !coming && before() >= SEATS) { hush(); come(); }
    if (stream && Date.now() - heard > 5000) { lost(); later(); }
  }, 1000);
  document.addEventListener("visibilitychange", follow);
  document.addEventListener("selectionchange", () => { if (newest !== null && !selecting()) show(); });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("form[data-tidy] :disabled")) field.disabled = false;
    follow();
  });

  // --- clicks
  const said = (button, text) => { button.dataset.isSaid = text; setTimeout(() => delete button.dataset.isSaid, 1200); };
  async function put(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea"); // over http there is no clipboard but on this machine
    area.className = "skip";
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("not allowed");
  }
  function paused(on) {
    document.body.toggleAttribute("data-paused", on);
    for (const button of document.querySelectorAll("[data-pause]")) button.setAttribute("aria-pressed", String(on));
    follow();
  }
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  function theme() {
    const root = document.documentElement;
    const now = root.dataset.theme || (dark() ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
  }
  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    const copy = at("[data-copy]");
    if (copy) put(copy.dataset.copy).then(() => said(copy, "Copied"), () => said(copy, "Not allowed"));
    if (at("#theme")) theme();
    if (at("#help")) $("keys").showModal();
    if (at("[data-pause]")) paused(!document.body.hasAttribute("data-paused"));
    if (at("[data-dismiss]")) { event.preventDefault(); $("outcome").replaceChildren(); }
    if (at("[data-tail-new]")) { window.scrollTo({ top: 0 }); release = true; hush(); tag = ""; come(); setTimeout(() => { release = false; }, 1500); }
  });
  document.addEventListener("change", (event) => { const form = event.target.closest("form[data-auto]"); if (form) form.requestSubmit(); });

  // --- forms: what an action came to is shown above the page, which stays as it is.
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    // By attribute: a field called "action" hides the property.
    const post = (form.getAttribute("method") || "get").toLowerCase() === "post";
    if (!post && form.hasAttribute("data-tidy")) for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
    if (!post || event.defaultPrevented) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter));
    if (event.submitter) event.submitter.disabled = true;
    const say = (text, kind = "") => {
      const said = document.createElement("section");
      said.className = `outcome ${kind}`;
      said.textContent = text;
      $("outcome").replaceChildren(said);
    };
    if (form.dataset.busy) say(form.dataset.busy);
    try {
      const response = await fetch(form.getAttribute("action") || location.href, { method: "POST", body });
      if (response.redirected) { location.assign(response.url); return; }
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      $("outcome").replaceChildren(...(page.getElementById("outcome") || page.body).cloneNode(true).childNodes);
    } catch (error) {
      say("The console does not answer; nothing is known of what became of this.", "is-bad");
    } finally {
      if (event.submitter) event.submitter.disabled = false;
      // From there, the next Tab goes to what is to be confirmed.
      if ([document.body, event.submitter].includes(document.activeElement)) $("outcome").focus({ preventScroll: true });
    }
    tellAll();
    $("outcome").scrollIntoView({ block: "nearest" });
  });

  // --- keys
  let last = "";
  const rows = () => [...main().querySelectorAll("[data-row]")].filter((row) => row.getClientRects().length);
  function step(by) {
    const all = rows(), at = all.indexOf(document.activeElement);
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
    if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest" }); }
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    if (event.target.closest("input, textarea, select")) { if (event.key === "Escape") event.target.blur(); return; }
    const went = last === "g" && document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    last = event.key;
    if (went) { went.click(); return; }
    const todo = {
      "?": () => $("keys").showModal(),
      "/": () => { const filter = document.querySelector("[data-filter]"); if (filter) { filter.focus(); filter.select(); } },
      j: () => step(1), k: () => step(-1), t: theme,
      p: () => { const button = document.querySelector("[data-pause]"); if (button) button.click(); },
      Escape: () => document.activeElement && document.activeElement.blur(),
    }[event.key];
    if (todo) { event.preventDefault(); todo(); }
  });

  for (const id of ["theme", "help"]) $(id).hidden = false;
  $("zone").textContent = zone;
  inZone(document);
  const here = document.querySelector(".side nav a[aria-current]");
  if (here && here.closest("nav").scrollWidth > here.closest("nav").clientWidth) here.scrollIntoView({ inline: "center", block: "nearest" });
  tellAll();
  follow();
})();
