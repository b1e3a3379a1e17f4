"use strict";
// Tries the page as a reader would, and leaves what it finds as JSON in an element of its own.
const found = {};
const column = (table, index) =>
  [...table.tBodies].map((body) => [...body.rows].map((row) => row.cells[index].textContent));
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const style = (selector) => getComputedStyle(document.querySelector(selector));

async function probe() {
  found.width = innerWidth;
  found.overflow = document.documentElement.scrollWidth - innerWidth;
  found.wide = [...document.querySelectorAll(".scroll")].some((box) => box.scrollWidth > box.clientWidth);

  const headline = document.querySelector(".table:has(.units)");
  const room = headline.querySelector(".scroll");
  found.headline = room.scrollWidth - room.clientWidth;
  const titles = [...headline.querySelector("thead tr").cells].map((head) => head.innerText.trim().replace(/\s+/g, " "));
  found.heads = titles.slice(2, 7);
  const bound = titles.findIndex((title) => title.startsWith("NELBO"));
  found.units = [...headline.querySelectorAll(".units button")].map((button) => {
    button.click();
    const said = (cell) => cell.innerText.trim().replace(/\s+/g, " ");
    const pressed = [...headline.querySelectorAll(".units [aria-pressed=true]")].map((each) => each.textContent);
    const rows = headline.querySelector("table").rows;
    return { pressed, head: said(rows[0].cells[bound]), cell: said(rows[1].cells[bound]) };
  });

  const table = document.querySelector("main table");
  const heads = [...table.tHead.rows[0].cells];
  found.sorts = heads.map((head, index) => {
    const button = head.querySelector("button");
    button.click();
    const up = { aria: head.getAttribute("aria-sort"), cells: column(table, index) };
    button.click();
    const down = { aria: head.getAttribute("aria-sort"), cells: column(table, index) };
    return { up, down, keys: button.tabIndex, others: heads.filter((each) => each.hasAttribute("aria-sort")).length };
  });

  const box = document.querySelector(".scroll");
  box.scrollLeft = 60;
  await wait(50);
  const first = table.tBodies[0].rows[0].cells[0].getBoundingClientRect();
  found.sticky = Math.abs(first.left - box.getBoundingClientRect().left);
  box.scrollLeft = 0;

  found.records = [];
  const dialog = document.getElementById("provenance");
  for (const link of document.querySelectorAll("a.number")) {
    if (!(link instanceof HTMLElement)) continue;
    link.focus();
    link.click();
    const shown = { open: dialog.open, text: dialog.innerText, number: link.textContent };
    shown.labelled = Boolean(document.getElementById(dialog.getAttribute("aria-labelledby")));
    const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
    shown.unique = new Set(ids).size === ids.length;
    shown.inside = dialog.getBoundingClientRect().right <= innerWidth;
    dialog.querySelector(".close").click();
    shown.closed = !dialog.open;
    shown.back = document.activeElement === link;
    found.records.push(shown);
  }

  const copy = document.querySelector(".record .copy");
  copy.closest("details").open = true;
  copy.click();
  await wait(200);
  found.copied = copy.textContent;

  const toggle = document.getElementById("theme");
  const themes = [];
  for (let turn = 0; turn < 2; turn += 1) {
    toggle.click();
    themes.push({
      theme: document.documentElement.dataset.theme,
      kept: localStorage.getItem("lsgm-theme"),
      page: style("body").backgroundColor,
      ink: style("body").color,
    });
  }
  found.themes = themes;
  localStorage.setItem("lsgm-theme", "dark");
  const early = document.createElement("script");
  early.textContent = document.querySelector("head script:not(#errors)").textContent;
  document.head.append(early);
  found.remembered = document.documentElement.dataset.theme;

  found.images = [...document.images].map((image) => image.naturalWidth);
  found.drawings = [...document.querySelectorAll("figure svg")].map((svg) => svg.getBoundingClientRect().height);
  const points = [...document.querySelectorAll("figure svg a")];
  if (points.length) {
    points[0].dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
    found.point = { said: points[0].querySelector("title").textContent, text: dialog.innerText };
    dialog.close();
  }
  location.hash = document.querySelectorAll(".record")[1].id;
  await wait(100);
  found.unfolded = document.querySelectorAll(".record")[1].open;
  found.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
}

probe().catch((error) => window.faults.push(String(error.stack || error))).finally(() => {
  found.faults = window.faults;
  const out = document.createElement("pre");
  out.id = "findings";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
