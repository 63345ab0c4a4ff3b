// What the pages do beyond links and forms. Everything that the server sends is set as text, or is a part of one of its own pages.
"use strict";
const MAX_ROWS = 500;
const base = document.currentScript.dataset.base;  // the path under which the page is mounted
const RETRY_MILLISECONDS = 5000;
const REFRESH_MILLISECONDS = 2000;
const NOTICE_MILLISECONDS = 2000;

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

// The journal's new events. A browser has six connections for all its tabs, and each stream takes one: a hidden tab has none.
function followJournal(live) {
  const rows = document.getElementById("events"), pause = document.getElementById("pause");
  let after = live.dataset.after, source = null, timer = 0, notice = 0, isPaused = false, said = "";
  const close = () => { clearTimeout(timer); clearTimeout(notice); source?.close(); source = null; };
  const retry = (text) => { close(); say(text); timer = setTimeout(open, RETRY_MILLISECONDS); };
  // A screen reader says what changes there, and only then.
  function say(text) { if (said !== text) live.replaceChildren(...sentence(text)); said = text; }
  function open() {
    close();
    if (document.hidden || isPaused) return;
    source = new EventSource(`${base}/journal/events?after=${encodeURIComponent(after)}`);
    source.onopen = () => { clearTimeout(notice); say("Live: new events appear at the top."); };
    // The browser itself tries again, but not after an answer that is no stream: a proxy's error, or too many pages.
    source.onerror = () => {
      const text = "The connection is interrupted; it is tried again.";
      clearTimeout(notice);
      if (source.readyState === EventSource.CLOSED) retry(text);
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

// What a person has scrolled stays where it is; what stands at its end, as new lines do, stays at the end.
function replaceScrolled(part, next) {
  const findBoxes = (of) => [...of.querySelectorAll("pre, .table")];
  const places = findBoxes(part).map((box) => [box.scrollLeft, box.scrollTop, box.scrollTop + box.clientHeight >= box.scrollHeight - 2]);
  part.replaceWith(next);
  findBoxes(next).slice(0, places.length).forEach((box, number) => {
    const [left, top, isAtEnd] = places[number];
    box.scrollTo(left, isAtEnd ? box.scrollHeight : top);
  });
}

// A request's page until the request ends. A part that changed is replaced, but none in which a person reads or is about to act.
function followRequest(status) {
  // The last events of the journal, and the last lines, may come a moment after the end.
  let timer = 0, refreshesAfterEnd = 2;
  const isInUse = (part) => part.contains(document.activeElement) || part.querySelector("details[open]")
    || (!getSelection().isCollapsed && getSelection().containsNode(part, true));
  function replaceParts(page) {
    const parts = [...document.querySelectorAll("[data-live]")].map((part) => [part, page.getElementById(part.id)]);
    const changed = parts.filter(([part, next]) => next && next.outerHTML !== part.outerHTML);
    const skipped = changed.filter(([part]) => isInUse(part));
    changed.filter(([part]) => !isInUse(part)).forEach(([part, next]) => replaceScrolled(part, next));
    return skipped.length === 0;
  }
  async function refresh() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await fetch(location.pathname + location.search, { redirect: "error" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById("follow");
      show(next.dataset.text);
      if (replaceParts(page) && next.dataset.ended) refreshesAfterEnd -= 1;
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
