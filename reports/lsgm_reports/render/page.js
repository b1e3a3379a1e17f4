"use strict";

const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const make = (name, text, attributes = {}) => {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
const say = (text) => { document.getElementById("status").textContent = text; };

/* The theme: the system's until one is chosen, then remembered. */
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
const toggle = make("button", "", { type: "button", id: "theme" });
const showTheme = () => {
  const other = isDark() ? "light" : "dark";
  toggle.textContent = isDark() ? "☀" : "☾";
  toggle.title = `Switch to the ${other} theme`;
  toggle.setAttribute("aria-label", toggle.title);
};
toggle.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("lsgm-theme", root.dataset.theme); } catch { /* for this visit only */ }
  showTheme();
});
system.addEventListener("change", showTheme);
showTheme();
document.body.prepend(toggle);

/* Tables sort by their heads: numbers by size, words by letters, gaps last whichever way. */
const order = new Intl.Collator("en", { numeric: true });
const keyOf = (row, column) => {
  const cell = row.cells[column];
  const key = cell.dataset.sort;
  if (key === "") return null;
  return key === undefined ? cell.textContent.trim() : Number(key);
};
const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return order.compare(a, b);
};
const sortBy = (table, column, sign) => {
  for (const body of table.tBodies) {
    const keyed = [...body.rows].map((row) => [keyOf(row, column), row]);
    const present = keyed.filter(([key]) => key !== null);
    const gaps = keyed.filter(([key]) => key === null);
    present.sort(([a], [b]) => sign * compare(a, b));
    body.append(...[...present, ...gaps].map(([, row]) => row));
  }
};
for (const table of $$("main table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", "", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sortBy(table, column, up ? 1 : -1);
      say(`Sorted by ${head.innerText.trim()}, ${up ? "ascending" : "descending"}`);
    });
  });
}

/* Bounds stand in one of two units; what is chosen beside one table holds for all. */
const inUnits = (table) => $$("[data-unit]", table);
const showUnit = (unit) => {
  for (const each of inUnits(document)) each.hidden = each.matches("span") && each.dataset.unit !== unit;
  for (const button of $$(".units button")) {
    button.setAttribute("aria-pressed", String(button.dataset.unit === unit));
  }
};
for (const table of $$("main .table")) {
  const shown = inUnits(table).filter((each) => !each.hidden);
  if (!shown.length) continue;
  const choice = make("div", "", { class: "units", role: "group", "aria-label": "Unit of the bounds" });
  for (const unit of new Set(inUnits(table).map((each) => each.dataset.unit))) {
    const pressed = String(unit === shown[0].dataset.unit);
    const button = make("button", unit, { type: "button", "aria-pressed": pressed, "data-unit": unit });
    button.addEventListener("click", () => { showUnit(unit); say(`Bounds in ${unit}`); });
    choice.append(button);
  }
  table.prepend(choice);
}

/* Commands can be copied. */
const copyButton = (code) => {
  const button = make("button", "Copy", { type: "button", class: "copy" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      say("Copied");
    } catch {
      // Not allowed here: the words are selected, and the keys do it.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
};
for (const code of $$(".command code")) code.after(copyButton(code));

/* The record of a number opens where the number stands. */
const dialog = document.getElementById("provenance");
const openRecord = (record) => {
  const [name, value] = $$("summary > span", record).map((span) => span.textContent);
  const content = record.querySelector("div").cloneNode(true);
  content.querySelector(".links").remove();
  const copied = content.querySelector(".copy");
  if (copied) copied.replaceWith(copyButton(content.querySelector(".command code")));
  const close = make("button", "Close", { type: "button", class: "close" });
  close.addEventListener("click", () => dialog.close());
  const head = make("header");
  head.append(make("h2", name, { id: "provenance-title" }), close);
  dialog.replaceChildren(head, make("p", value, { class: "value" }), content);
  for (const anchor of record.dataset.with.split(" ")) {
    const shared = document.getElementById(anchor).cloneNode(true);
    shared.removeAttribute("id");
    dialog.append(shared);
  }
  dialog.showModal();
  dialog.scrollTop = 0;
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.number");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const record = document.getElementById(link.getAttribute("href").slice(1));
  if (!record) return;
  event.preventDefault();
  openRecord(record);
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

/* A link to a record, from elsewhere, shows it unfolded. */
const unfold = () => {
  const record = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (record && record.matches("details")) record.open = true;
};
addEventListener("hashchange", unfold);
unfold();

/* The contents: folded where there is little room, and showing where the reader is. */
const contents = document.querySelector(".contents details");
const wide = matchMedia("(min-width: 90rem)");
const fold = () => { contents.open = wide.matches; };
wide.addEventListener("change", fold);
fold();
contents.addEventListener("click", (event) => {
  if (event.target.closest("a") && !wide.matches) contents.open = false;
});
const entries = new Map($$(".contents a").map((link) => [link.getAttribute("href").slice(1), link]));
const headings = [...entries.keys()].map((anchor) => document.getElementById(anchor));
const follow = () => {
  const passed = headings.filter((heading) => heading.getBoundingClientRect().top < innerHeight * 0.25);
  const here = passed.length ? passed[passed.length - 1].id : null;
  for (const [anchor, link] of entries) {
    if (anchor === here) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
};
let waiting = false;
addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; follow(); });
}, { passive: true });
follow();
