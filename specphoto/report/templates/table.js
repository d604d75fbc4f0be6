// The sample's table: rows stay data, and only one page of them is ever in the document.
"use strict";
(() => {
  const PAGE = 50;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const rows = read("rows"), columns = read("columns");
  const at = (id) => document.getElementById(id);
  const head = document.querySelector("#galaxies thead tr");
  const body = document.querySelector("#galaxies tbody");
  const collator = new Intl.Collator("en", { numeric: true });
  const rank = { fail: 0, warn: 1, pass: 2 };
  const state = { key: "verdict", down: false, first: 0, shown: rows };
  for (const row of rows) row.text = Object.values(row).join(" ").toLowerCase();

  const value = (row, key) => (key === "verdict" ? rank[row[key]] : row[key]);
  const unknown = (v) => v === null || v === undefined || v === "";
  function compare(a, b) {
    const one = value(a, state.key), two = value(b, state.key);
    if (unknown(one) || unknown(two)) return unknown(one) - unknown(two); // unknown always last
    const order = typeof one === "number" && typeof two === "number" ? one - two
      : collator.compare(String(one), String(two));
    return state.down ? -order : order;
  }

  function select() {
    const wanted = at("search").value.trim().toLowerCase(), verdict = at("verdict").value;
    state.shown = rows.filter((row) =>
      (!verdict || row.verdict === verdict) && (!wanted || row.text.includes(wanted)));
    state.shown.sort(compare);
    state.first = 0;
    draw();
  }

  function cell(row, column) {
    const td = document.createElement(column.key === "name" ? "th" : "td");
    const v = row[column.key];
    if (column.key === "name") {
      td.scope = "row";
      const link = td.appendChild(document.createElement("a"));
      link.textContent = v;
      if (row.page) link.href = row.page;
    } else if (column.key === "thumbnail") {
      if (v) {
        const image = td.appendChild(new Image(48, 48));
        image.loading = "lazy";
        image.alt = "";
        image.src = v;
      }
    } else {
      td.textContent = unknown(v) ? "–"
        : typeof v === "number" && !Number.isInteger(v) ? String(+v.toPrecision(4))
        : Array.isArray(v) ? v.join("; ") : String(v);
      td.className = column.key === "verdict" ? v : column.key;
    }
    return td;
  }

  function draw() {
    const last = Math.min(state.first + PAGE, state.shown.length);
    body.replaceChildren(...state.shown.slice(state.first, last).map((row) => {
      const tr = document.createElement("tr");
      tr.append(...columns.map((column) => cell(row, column)));
      return tr;
    }));
    at("state").textContent = state.shown.length
      ? `${state.first + 1} to ${last} of ${state.shown.length}` : "no galaxy fits these filters";
    at("previous").disabled = state.first === 0;
    at("next").disabled = last >= state.shown.length;
    for (const th of head.children) {
      if (th.dataset.key === state.key) th.ariaSort = state.down ? "descending" : "ascending";
      else th.removeAttribute("aria-sort");
    }
  }

  for (const column of columns) {
    const th = head.appendChild(document.createElement("th"));
    th.scope = "col";
    th.dataset.key = column.key;
    if (column.key === "thumbnail") { th.textContent = column.label; continue; }
    const button = th.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = column.label;
    button.addEventListener("click", () => {
      state.down = state.key === column.key && !state.down;
      state.key = column.key;
      select();
    });
  }
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("search").addEventListener("input", select);
  at("verdict").addEventListener("change", select);
  at("previous").addEventListener("click", () => { state.first -= PAGE; draw(); });
  at("next").addEventListener("click", () => { state.first += PAGE; draw(); });
  select();
})();
