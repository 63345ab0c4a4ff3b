// What the pages do beyond links and forms. Everything that the server sends is set as text, or is a part of one of its own pages.
"use strict";
const MAX_ROWS = 500;
const base = document.currentScript.dataset.base;  // the path under which the page is mounted
const RETRY_MILLISECONDS = 5000;
const REFRESH_MILLISECONDS = 2000;
const NOTICE_MILLISECONDS = 2000;
const LOGGED_OUT = "You are no longer logged in, or may not see this any more: load the page again.";

// A second press, or a press after the way back, sends no form twice.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => { delete form.dataset.sent; }));

// A sentence as the command line has it: what stands between backticks is code, as in the macro `sentence` of the pages.
function sentence(text) {
  const parts = text.split("`");
  return parts.map((part, index) => {
    if (index % 2 === 0) return part;
    if (index === parts.length - 1) return `\`${part}`;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  });
}

// A server that wants a log-in leads there, or says so.
function isLoggedOut(answer) { return answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403; }

// The journal's new events. A browser has six connections for all its tabs, and each stream takes one: a hidden tab has none.
function followJournal(live) {
  const rows = document.getElementById("events"), pause = document.getElementById("pause");
  let after = live.dataset.after, source = null, timer = 0, notice = 0, isPaused = false, said = "";
  const close = () => { clearTimeout(timer); clearTimeout(notice); source?.close(); source = null; };
  const retry = (text) => { close(); say(text); timer = setTimeout(open, RETRY_MILLISECONDS); };
  // A screen reader says what changes there, and only then.
  function say(text) { if (said !== text) live.replaceChildren(...sentence(text)); said = text; }
  // The browser hides the answer that is no stream.
  async function sayIfLoggedOut(address) {
    try {
      if (isLoggedOut(await fetch(address, { method: "HEAD", redirect: "manual" }))) { close(); say(LOGGED_OUT); }
    } catch { return; }  // it is tried again
  }
  function open() {
    close();
    if (document.hidden || isPaused) return;
    const address = `${base}/journal/events?after=${encodeURIComponent(after)}`;
    source = new EventSource(address);
    source.onopen = () => { clearTimeout(notice); say("Live: new events appear at the top."); };
    // The browser itself tries again, but not after an answer that is no stream: a proxy's error, or too many pages.
    source.onerror = () => {
      const text = "The connection is interrupted; it is tried again.";
      clearTimeout(notice);
      if (source.readyState === EventSource.CLOSED) { retry(text); sayIfLoggedOut(address); }
      else notice = setTimeout(() => say(text), NOTICE_MILLISECONDS);  // not when the server just ends a long stream
    };
    source.addEventListener("problem", (message) => retry(JSON.parse(message.data)));
    source.onmessage = (message) => { after = message.lastEventId; addRow(rows, JSON.parse(message.data)); };
  }
  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) say("Paused: nothing moves.");
    open();
  });
  document.addEventListener("visibilitychange", open);
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  open();
}

function addRow(rows, texts) {
  const row = rows.insertRow(0);
  texts.forEach((text, column) => {
    const cell = document.createElement(column === 1 ? "th" : "td");
    if (column === 1) cell.scope = "row";
    if (column === 0) cell.className = "time";
    if (column === 2) cell.className = "wrapped";
    if (column === 4) cell.className = "reason";
    if (column === 2 && text) {
      const link = document.createElement("a");
      link.className = "id";
      link.href = `${base}/tasks/${encodeURIComponent(text)}`;
      link.textContent = text;
      cell.append(link);
    } else if (column === 4) {
      cell.append(...sentence(text));
    } else {
      cell.textContent = text;
    }
    row.append(cell);
  });
  while (rows.rows.length > MAX_ROWS) rows.deleteRow(-1);
}

// Change what differs and nothing else: what is replaced loses its place, for a screen reader and for who has scrolled it.
function update(node, next) {
  if (node.isEqualNode(next)) return;
  if (node.nodeType === Node.TEXT_NODE && next.nodeType === Node.TEXT_NODE) {
    node.data = next.data;
  } else if (node.nodeName !== next.nodeName || node.childNodes.length !== next.childNodes.length) {
    node.replaceWith(next);
  } else {
    node.getAttributeNames().forEach((name) => { if (!next.hasAttribute(name)) node.removeAttribute(name); });
    next.getAttributeNames().forEach((name) => node.setAttribute(name, next.getAttribute(name)));
    const others = [...next.childNodes];
    [...node.childNodes].forEach((child, number) => update(child, others[number]));
  }
}

// Lines of which the last one is shown go on to show the last one.
function updatePart(part, next) {
  const atEnd = [...part.querySelectorAll("pre")].filter((box) => box.scrollTop + box.clientHeight >= box.scrollHeight - 2);
  update(part, next);
  atEnd.forEach((box) => { box.scrollTop = box.scrollHeight; });
}

// A request's page until the request ends. A part changes, but none in which a person reads or is about to act.
function followRequest(status) {
  // The last events of the journal, and the last lines, may come a moment after the end.
  let timer = 0, refreshesAfterEnd = 2;
  const isInUse = (part) => part.contains(document.activeElement) || part.querySelector("details[open]")
    || (!getSelection().isCollapsed && getSelection().containsNode(part, true));
  function updateParts(page) {
    const parts = [...document.querySelectorAll("[data-live]")].map((part) => [part, page.getElementById(part.id)]);
    const changed = parts.filter(([part, next]) => next && next.outerHTML !== part.outerHTML);
    const skipped = changed.filter(([part]) => isInUse(part));
    changed.filter(([part]) => !isInUse(part)).forEach(([part, next]) => updatePart(part, next));
    return skipped.length === 0;
  }
  async function refresh() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await fetch(location.pathname + location.search, { redirect: "manual" });
      if (isLoggedOut(answer)) return show(LOGGED_OUT);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById("follow");
      show(next.dataset.text);
      if (updateParts(page) && next.dataset.ended) refreshesAfterEnd -= 1;
    } catch {
      show("The server does not answer as it should; it is asked again.");
    }
    if (refreshesAfterEnd > 0) timer = setTimeout(refresh, REFRESH_MILLISECONDS);
  }
  // A screen reader says what changes there, and only then.
  function show(text) { if (status.textContent !== text) status.textContent = text; }
  document.addEventListener("visibilitychange", () => { if (refreshesAfterEnd > 0) refresh(); });
  show(status.dataset.text);
  timer = setTimeout(refresh, REFRESH_MILLISECONDS);
}

const live = document.getElementById("live");
if (live && "EventSource" in window) followJournal(live);
const followed = document.getElementById("follow");
if (followed && !followed.dataset.ended) followRequest(followed);
