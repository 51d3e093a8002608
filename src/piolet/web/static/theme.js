// Before anything is drawn: the theme that the visitor chose, else the system's.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = () => {
    const chosen = localStorage.getItem("theme");
    document.documentElement.dataset.theme = chosen || (dark.matches ? "dark" : "light");
  };
  set();
  dark.addEventListener("change", set);
})();
