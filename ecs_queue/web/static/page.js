// The journal's new events, as the server sends them. Everything is set as text: an event never becomes HTML.
"use strict";
const MAX_ROWS = 500;
const live = document.getElementById("live");
if (live && "EventSource" in window) {
  const rows = document.getElementById("events");
  const source = new EventSource(`/journal/events?after=${encodeURIComponent(live.dataset.after)}`);
  source.onopen = () => { live.textContent = "Live: new events appear at the top."; };
  source.onerror = () => { live.textContent = "The connection is interrupted; it is tried again."; };
  source.addEventListener("problem", (message) => { source.close(); live.textContent = JSON.parse(message.data); });
  source.onmessage = (message) => {
    const row = rows.insertRow(0);
    JSON.parse(message.data).forEach((text, column) => {
      const cell = document.createElement(column === 1 ? "th" : "td");
      if (column === 1) cell.scope = "row";
      if (column === 0) cell.className = "time";
      if (column === 4) cell.className = "reason";
      if (column === 2 && text) {
        const link = document.createElement("a");
        link.className = "id";
        link.href = `/tasks/${encodeURIComponent(text)}`;
        link.textContent = text;
        cell.append(link);
      } else {
        cell.textContent = text;
      }
      row.append(cell);
    });
    while (rows.rows.length > MAX_ROWS) rows.deleteRow(-1);
  };
}
