// Reads a value off the plots under the pointer; without it the page is complete all the same.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = [...document.querySelectorAll("figure[data-series]")];
  const shown = (value, unit) =>
    unit === "%" ? `${(100 * value).toFixed(0)} %` : unit ? `${value.toFixed(0)} ${unit}` : String(Number(value.toPrecision(3)));
  const clock = (seconds) => {
    const whole = Math.round(seconds), pad = (number) => String(number).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    const hours = Math.floor(whole / 3600), minutes = Math.floor((whole % 3600) / 60);
    return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  };
  const nearest = (points, time) =>
    points.reduce((best, point) => (Math.abs(point[0] - time) < Math.abs(best[0] - time) ? point : best));

  const show = (share) => {
    const time = share * data.length;
    for (const figure of figures) {
      const points = data.series[figure.dataset.series];
      const cursor = figure.querySelector(".cursor");
      if (!points || !points.length) continue;
      const [at, mean, low, high] = nearest(points, time);
      const unit = figure.dataset.unit;
      cursor.hidden = false;
      cursor.style.left = `${100 * share}%`;
      figure.querySelector("output").textContent =
        `${clock(at)}: ${shown(mean, unit)} (${shown(low, unit)} to ${shown(high, unit)})`;
    }
  };
  const hide = () => {
    for (const figure of figures) {
      figure.querySelector(".cursor").hidden = true;
      figure.querySelector("output").textContent = "";
    }
  };
  for (const figure of figures) {
    const plot = figure.querySelector(".plot");
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      show(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
    });
    plot.addEventListener("pointerleave", hide);
  }
})();
