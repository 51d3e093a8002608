// What pages do beyond HTML: plots, a heat map under the pointer, live updates, fragments, keys. Pages read without it.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const PALETTE = ["deep", "ochre", "green", "red", "ice", "soft"];

  // ---- theme
  const themeButton = document.querySelector("[data-theme-button]");
  const nameTheme = () => { themeButton.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; };
  themeButton.addEventListener("click", () => {
    localStorage.setItem("theme", root.dataset.theme === "dark" ? "light" : "dark");
    root.dataset.theme = localStorage.getItem("theme");
    nameTheme();
    drawAll();
  });
  nameTheme();

  // ---- the range of time, shared by all plots and kept in the address
  const range = () => {
    const query = new URLSearchParams(location.search);
    return query.has("from") && query.has("to") ? [Number(query.get("from")), Number(query.get("to"))] : null;
  };
  const setRange = (next) => {
    const address = new URL(location.href);
    if (next) {
      address.searchParams.set("from", next[0].toFixed(1));
      address.searchParams.set("to", next[1].toFixed(1));
    } else {
      address.searchParams.delete("from");
      address.searchParams.delete("to");
    }
    history.replaceState(null, "", address);
    showRange();
    loadAll();
  };
  const showRange = () => {
    const shown = range();
    for (const reset of all("[data-reset]")) reset.hidden = !shown;
    for (const said of all("[data-range]")) said.textContent = shown ? `${clock(shown[0])} to ${clock(shown[1])}` : "the whole job";
    for (const link of all("a[data-ranged]")) {
      const address = new URL(link.href);
      for (const name of ["from", "to"]) {
        if (shown) address.searchParams.set(name, new URLSearchParams(location.search).get(name));
        else address.searchParams.delete(name);
      }
      link.href = address;
    }
  };
  const clock = (seconds) => {
    const whole = Math.max(0, Math.round(seconds)), pad = (number) => String(number).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    const hours = Math.floor(whole / 3600), minutes = Math.floor((whole % 3600) / 60);
    return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  };

  // ---- plots
  const SIZES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
  const shown = (value, unit) => {
    if (value == null) return "–";
    if (unit === "%") return `${(100 * value).toFixed(value && value < 0.1 ? 1 : 0)} %`;
    const [size, prefix] = SIZES.find(([size]) => Math.abs(value) >= size) || [1, ""];
    return `${Number((value / size).toPrecision(3))} ${prefix}${unit}`.trim();
  };
  const plots = all("[data-plot]").map((element) => ({ element, data: null, drawn: null }));
  const sync = window.uPlot ? uPlot.sync("time") : null;

  const options = (plot, data) => {
    const one = data.lines.length === 1, series = [{ label: "time", value: (_, at) => (at == null ? "–" : clock(at)) }], bands = [];
    const said = (_, value) => shown(value, data.unit);
    data.lines.forEach((line, number) => {
      const stroke = colour(PALETTE[number % PALETTE.length]);
      series.push({ label: line.name, stroke, width: one ? 1.7 : 1.3, value: said, points: { show: false }, spanGaps: false });
    });
    if (data.band) {
      for (const label of ["highest", "lowest"]) series.push({ label, stroke: "transparent", value: said, points: { show: false } });
      bands.push({ series: [series.length - 2, series.length - 1], fill: `color-mix(in srgb, ${colour(one ? PALETTE[0] : "soft")} ${one ? 22 : 14}%, transparent)` });
    }
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11.5px system-ui, sans-serif" };
    return {
      width: plot.element.clientWidth, height: plot.element.dataset.height ? Number(plot.element.dataset.height) : 150,
      series, bands,
      legend: { show: data.lines.length <= 8, live: true },
      cursor: { sync: { key: sync.key }, drag: { x: true, y: false, setScale: false }, points: { size: 5 } },
      scales: { x: { time: false }, y: { range: (_, low, high) => (data.unit === "%" ? [0, Math.max(1, high)] : [Math.min(0, low), high === low ? low + 1 : high * 1.05]) } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map(clock), space: 70, size: 30 },
        { ...axis, values: (_, ticks) => ticks.map((tick) => shown(tick, data.unit)), size: 74, space: 34 },
      ],
      hooks: {
        setSelect: [(drawn) => {
          const { left, width } = drawn.select;
          if (width > 3) setRange([drawn.posToVal(left, "x"), drawn.posToVal(left + width, "x")]);
        }],
        draw: [(drawn) => marks(drawn, data.marks || [])],
      },
    };
  };
  const marks = (drawn, found) => {
    const { ctx, bbox } = drawn;
    ctx.save();
    ctx.setLineDash([5, 4]);
    for (const mark of found) {
      const x = drawn.valToPos(mark.at, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = colour(mark.severity === "error" ? "red" : mark.severity === "warning" ? "ochre" : "soft");
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };
  const columns = (data) => [data.times, ...data.lines.map((line) => line.mean), ...(data.band ? [data.band.high, data.band.low] : [])];
  const draw = (plot) => {
    if (!plot.data) return;
    plot.drawn?.destroy();
    plot.element.textContent = "";
    plot.drawn = null;
    if (!plot.data.times.length) {
      plot.element.textContent = "Nothing was recorded here.";
      return;
    }
    plot.element.classList.toggle("many", plot.data.lines.length > 1);
    plot.drawn = new uPlot(options(plot, plot.data), columns(plot.data), plot.element);
    plot.drawn.over.addEventListener("dblclick", () => setRange(null));
  };
  const drawAll = () => plots.forEach(draw);
  const fetched = (address) => fetch(address).catch(async () => {  // a network that changes cuts off what is under way
    await new Promise((resume) => setTimeout(resume, 1000));
    return fetch(address);
  });
  const load = async (plot) => {
    const address = new URL(plot.element.dataset.plot, location.href), shownRange = range();
    if (shownRange) {
      address.searchParams.set("from", shownRange[0]);
      address.searchParams.set("to", shownRange[1]);
    }
    try {
      const answer = await fetched(address);
      if (!answer.ok) throw new Error((await answer.text()).slice(0, 200) || answer.statusText);
      plot.data = await answer.json();
      plot.element.classList.remove("failed");
      plot.element.setAttribute("aria-label", plot.data.summary);
      draw(plot);
    } catch (error) {
      plot.element.classList.add("failed");
      plot.element.textContent = `This plot could not be loaded: ${error.message}`;
    }
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      const plot = plots.find((each) => each.element === entry.target);
      seen.unobserve(entry.target);
      plot.wanted = true;
      load(plot);
    }
  }, { rootMargin: "300px" });
  plots.forEach((plot) => seen.observe(plot.element));
  const loadAll = () => plots.filter((plot) => plot.wanted).forEach(load);
  let resizing;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => plots.forEach((plot) => plot.drawn?.setSize({ width: plot.element.clientWidth, height: plot.drawn.height })), 120);
  });
  for (const reset of all("[data-reset]")) reset.addEventListener("click", () => setRange(null));
  showRange();

  // ---- the heat map under the pointer; it may be replaced while a job runs, so the document listens
  const heatAt = (event) => {
    const heat = event.target.closest?.("[data-heat]");
    if (!heat) return null;
    const names = JSON.parse(heat.dataset.names), box = heat.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * names.length);
    return { heat, names, row: Math.min(Math.max(row, 0), names.length - 1), time: ((event.clientX - box.left) / box.width) * Number(heat.dataset.length) };
  };
  document.addEventListener("pointermove", (event) => {
    const at = heatAt(event);
    if (at) at.heat.nextElementSibling.textContent = `${at.names[at.row]} at ${clock(at.time)}`;
  });
  document.addEventListener("click", (event) => {
    const at = heatAt(event);
    if (at) location.href = at.heat.dataset.base + JSON.parse(at.heat.dataset.heat)[at.row];
  });

  // ---- fragments: a form that answers while one types, and a page that follows its job
  const replace = async (target, address) => {
    const answer = await fetch(address, { headers: { "X-Fragment": "1" } });
    if (answer.ok) target.innerHTML = await answer.text();
    return answer.ok;
  };
  for (const form of all("form[data-fragment]")) {
    let waiting;
    form.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(async () => {
        const given = [...new FormData(form)].filter(([, value]) => value !== "");
        const address = `${form.action.split("?")[0]}?${new URLSearchParams(given)}`;
        if (await replace(document.querySelector(form.dataset.fragment), address)) history.replaceState(null, "", address);
      }, 250);
    });
  }
  for (const part of all("[data-follow]")) {
    let following = false, again = false;  // a change that comes while one waits for the last is not lost
    const follow = async () => {
      again = true;
      if (following) return;
      following = true;
      while (again) {
        again = false;
        await replace(part, location.href);
        again ||= Boolean(part.querySelector("[data-missing]"));  // the server waits for what is missing
      }
      following = false;
      if ("plots" in part.dataset && !part.querySelector("[role=alert]")) location.reload();  // there are more of them
      else if (!range()) loadAll();
    };
    if (part.dataset.follow === "reload") replace(part, location.href).then(() => location.reload());
    if (part.dataset.follow === "now") follow();
    if (!part.dataset.live) continue;
    const stream = new EventSource(part.dataset.live);
    stream.addEventListener("changed", follow);
    stream.addEventListener("ended", () => { stream.close(); location.reload(); });
  }

  // ---- keys
  const dialog = document.querySelector("dialog");
  document.querySelector("[data-keys-button]").addEventListener("click", () => dialog.showModal());
  const select = (step) => {
    const rows = all("tbody tr[data-href]");
    if (!rows.length) return;
    const now = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const next = rows[Math.min(Math.max(now + step, 0), rows.length - 1)];
    if (now >= 0) rows[now].removeAttribute("aria-selected");
    next.setAttribute("aria-selected", "true");
    next.querySelector("a").focus();
  };
  const zoom = (factor, shift) => {
    const first = plots.find((plot) => plot.drawn);
    if (!first) return;
    const { min, max } = first.drawn.scales.x, middle = (min + max) / 2 + shift * (max - min), half = ((max - min) / 2) * factor;
    setRange([Math.max(0, middle - half), middle + half]);
  };
  const KEYS = {
    "/": () => document.querySelector("input[type=search]")?.focus(),
    j: () => select(1), k: () => select(-1),
    "+": () => zoom(0.5, 0), "-": () => zoom(2, 0), ArrowLeft: () => zoom(1, -0.25), ArrowRight: () => zoom(1, 0.25),
    0: () => setRange(null), "?": () => dialog.showModal(),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    const act = KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });
})();
