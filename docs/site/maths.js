// Formulas are text between \( \) or \[ \] until KaTeX, which is asked of a public server, has drawn them.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof renderMathInElement === "undefined") return;
  renderMathInElement(document.body, {
    delimiters: [
      { left: "\\[", right: "\\]", display: true },
      { left: "\\(", right: "\\)", display: false },
    ],
    throwOnError: false,
  });
});
