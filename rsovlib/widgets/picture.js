// The picture of a workbench: an image, a layer over it (and another for the left of a swipe), a marker, a scale bar.
// Opacity, arrangement and the divider are changed here, in the browser: no message has to reach the kernel first.

function element(kind, name, parent) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (parent) parent.appendChild(made);
  return made;
}

const STYLE = `
.rsov-picture{display:inline-block;font:13px/1.4 var(--jp-ui-font-family,sans-serif);color:var(--jp-ui-font-color1,#222)}
.rsov-panes{display:flex;gap:6px}
.rsov-pane{position:relative;overflow:hidden;background:#ddd;outline-offset:-3px;cursor:crosshair;touch-action:none}
.rsov-pane:focus{outline:3px solid #0072B2}
.rsov-pane img{position:absolute;inset:0;width:100%;height:100%;display:block;user-select:none;-webkit-user-drag:none}
.rsov-pane img[hidden]{display:none}
.rsov-divider{position:absolute;top:0;bottom:0;width:0;border-left:2px solid #fff;box-shadow:0 0 2px 1px #000;pointer-events:none}
.rsov-caption{position:absolute;top:4px;padding:1px 6px;background:rgba(0,0,0,.65);color:#fff;border-radius:3px;font-size:12px;pointer-events:none;max-width:46%}
.rsov-marker,.rsov-frame,.rsov-cursor{position:absolute;pointer-events:none;box-sizing:border-box}
.rsov-marker{width:17px;height:17px;margin:-8.5px 0 0 -8.5px;border:2px solid #fff;border-radius:50%;box-shadow:0 0 0 2px #000,inset 0 0 0 1px #000}
.rsov-cursor{width:13px;height:13px;margin:-6.5px 0 0 -6.5px;border:1px solid #fff;outline:1px solid #000}
.rsov-frame{border:1.5px dashed #fff;outline:1px dashed #000}
.rsov-scale{position:absolute;left:8px;bottom:8px;color:#fff;background:rgba(0,0,0,.65);padding:1px 5px 3px;border-radius:3px;font-size:12px;pointer-events:none}
.rsov-scale i{display:block;height:4px;border:1px solid #fff;border-top:0;margin-top:1px}
.rsov-workbench .lm-TabBar-tab{flex:1 1 auto!important;min-width:0!important;padding:0 5px!important}
.rsov-swipe{width:100%;margin:4px 0 0;box-sizing:border-box}
`;

function roundLength(limit) {
  const power = Math.pow(10, Math.floor(Math.log10(limit)));
  for (const step of [5, 2, 1]) if (step * power <= limit) return step * power;
  return power;
}

function render({ model, el }) {
  if (!document.getElementById("rsov-picture-style")) {
    const style = element("style", "", document.head);
    style.id = "rsov-picture-style";
    style.textContent = STYLE;
  }
  const root = element("div", "rsov-picture", el);
  const panes = element("div", "rsov-panes", root);
  const left = makePane(panes);
  const right = makePane(panes);
  const swipe = element("input", "rsov-swipe", root);
  swipe.type = "range"; swipe.min = 0; swipe.max = 100; swipe.step = 1;
  swipe.setAttribute("aria-label", "divider between left and right");
  const cursor = { x: null, y: null };
  const urls = {};
  let painted = 0;

  function makePane(parent) {
    const pane = element("div", "rsov-pane", parent);
    pane.tabIndex = 0;
    pane.setAttribute("role", "img");
    const parts = { pane };
    for (const name of ["base", "under", "over"]) {
      parts[name] = element("img", "rsov-" + name, pane);
      parts[name].alt = "";
      parts[name].hidden = true;
    }
    for (const name of ["divider", "frame", "marker", "cursor", "scale"]) parts[name] = element("div", "rsov-" + name, pane);
    parts.first = element("div", "rsov-caption", pane);
    parts.second = element("div", "rsov-caption", pane);
    parts.first.style.left = "6px";
    parts.second.style.right = "6px";
    return parts;
  }

  // A new picture is decoded before it replaces the old one, so that nothing flickers.
  async function load(name) {
    const bytes = model.get(name);
    if (!bytes || !bytes.byteLength) {
      urls[name] = null;
      return;
    }
    const kind = name === "base" ? model.get("base_type") : "image/png";
    const url = URL.createObjectURL(new Blob([bytes], { type: kind }));
    const probe = new Image();
    probe.src = url;
    try { await probe.decode(); } catch (error) { URL.revokeObjectURL(url); return; }
    if (urls[name]) { const old = urls[name]; setTimeout(() => URL.revokeObjectURL(old), 2000); }
    urls[name] = url;
  }

  function show(image, url) {
    image.hidden = !url;
    if (url && image.src !== url) image.src = url;
  }

  function layout() {
    const kind = model.get("arrangement");
    const [height, width] = model.get("shape");
    const shown = model.get("display_width");
    const wide = kind === "side" ? Math.floor((shown - 6) / 2) : shown;
    const tall = Math.round(wide * height / width);
    for (const parts of [left, right]) {
      parts.pane.style.width = wide + "px";
      parts.pane.style.height = tall + "px";
      const sharp = wide > 1.5 * width ? "pixelated" : "auto";
      for (const name of ["base", "under", "over"]) parts[name].style.imageRendering = sharp;
    }
    right.pane.style.display = kind === "side" ? "" : "none";
    swipe.style.display = kind === "swipe" ? "" : "none";
    root.style.width = shown + "px";
    const split = model.get("split");
    if (document.activeElement !== swipe) swipe.value = Math.round(split * 100);
    const opacity = model.get("opacity");
    show(left.base, urls.base); show(right.base, urls.base);
    if (kind === "side") {
      show(left.under, urls.under); show(left.over, null);
      show(right.under, null); show(right.over, urls.over);
    } else if (kind === "swipe") {
      show(left.under, urls.under); show(left.over, urls.over);
    } else {
      show(left.under, null); show(left.over, urls.over);
    }
    for (const parts of [left, right]) {
      parts.over.style.opacity = model.get("solid") ? 1 : opacity;
      parts.under.style.opacity = opacity;
      parts.over.style.clipPath = kind === "swipe" ? `inset(0 0 0 ${split * 100}%)` : "";
      parts.under.style.clipPath = kind === "swipe" ? `inset(0 ${100 - split * 100}% 0 0)` : "";
      parts.divider.style.display = kind === "swipe" ? "" : "none";
      parts.divider.style.left = `calc(${split * 100}% - 1px)`;
      const frame = model.get("frame");
      parts.frame.style.display = frame.length === 4 ? "" : "none";
      if (frame.length === 4) {
        parts.frame.style.left = 100 * frame[0] / width + "%";
        parts.frame.style.top = 100 * frame[1] / height + "%";
        parts.frame.style.width = 100 * (frame[2] - frame[0]) / width + "%";
        parts.frame.style.height = 100 * (frame[3] - frame[1]) / height + "%";
      }
      place(parts.marker, model.get("marker"), width, height);
      const here = document.activeElement === parts.pane && cursor.x !== null ? [cursor.x, cursor.y] : [];
      place(parts.cursor, here, width, height);
      scale(parts.scale, wide, width);
    }
    const [first, second] = model.get("captions");
    caption(left.first, kind === "overlay" ? "" : first);
    caption(left.second, kind === "side" ? "" : second);
    caption(right.first, ""); caption(right.second, second);
    const alt = model.get("description");
    left.pane.setAttribute("aria-label", alt); right.pane.setAttribute("aria-label", alt);
    requestAnimationFrame(() => { root.dataset.shown = String(performance.now()); root.dataset.version = String(++painted); });
  }

  function place(mark, point, width, height) {
    mark.style.display = point.length === 2 ? "" : "none";
    if (point.length !== 2) return;
    mark.style.left = 100 * (point[0] + 0.5) / width + "%";
    mark.style.top = 100 * (point[1] + 0.5) / height + "%";
  }

  function caption(box, text) {
    box.textContent = text;
    box.style.display = text ? "" : "none";
  }

  function scale(box, wide, width) {
    const metres = model.get("metres");
    const unit = metres > 0 ? metres : 1;
    const length = roundLength(0.3 * width * unit);
    const pixels = length / unit * wide / width;
    box.textContent = metres > 0 ? (length >= 1000 ? length / 1000 + " km" : length + " m") : length + " pixels";
    const bar = element("i", "", box);
    bar.style.width = pixels + "px";
  }

  function pick(x, y) {
    const [height, width] = model.get("shape");
    const column = Math.min(width - 1, Math.max(0, Math.floor(x)));
    const row = Math.min(height - 1, Math.max(0, Math.floor(y)));
    cursor.x = column; cursor.y = row;
    model.set("picked", [column, row, (model.get("picked")[2] || 0) + 1]);
    model.save_changes();
  }

  function at(parts, event) {
    const box = parts.pane.getBoundingClientRect();
    const [height, width] = model.get("shape");
    return [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
  }

  function setSplit(value) {
    model.set("split", Math.min(1, Math.max(0, value)));
    layout();
    model.save_changes();
  }

  for (const parts of [left, right]) {
    let dragging = false;
    parts.pane.addEventListener("pointerdown", (event) => {
      parts.pane.focus();
      if (model.get("arrangement") === "swipe") {
        dragging = true;
        parts.pane.setPointerCapture(event.pointerId);
        setSplit(at(parts, event)[0] / model.get("shape")[1]);
      } else {
        pick(...at(parts, event));
      }
      event.preventDefault();
    });
    parts.pane.addEventListener("pointermove", (event) => {
      if (dragging) setSplit(at(parts, event)[0] / model.get("shape")[1]);
    });
    parts.pane.addEventListener("pointerup", () => { dragging = false; });
    parts.pane.addEventListener("focus", layout);
    parts.pane.addEventListener("blur", layout);
    parts.pane.addEventListener("keydown", (event) => {
      const [height, width] = model.get("shape");
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key in moves) {
        if (cursor.x === null) { cursor.x = width >> 1; cursor.y = height >> 1; }
        const far = event.shiftKey ? 1 : 8;
        cursor.x = Math.min(width - 1, Math.max(0, cursor.x + far * moves[event.key][0]));
        cursor.y = Math.min(height - 1, Math.max(0, cursor.y + far * moves[event.key][1]));
        layout();
      } else if (event.key === "Enter" || event.key === " ") {
        if (cursor.x === null) { cursor.x = width >> 1; cursor.y = height >> 1; }
        pick(cursor.x, cursor.y);
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    });
  }
  swipe.addEventListener("input", () => setSplit(swipe.value / 100));

  const changed = new Set();
  let busy = false;
  async function update() {
    if (busy) return;
    busy = true;
    while (changed.size) {
      const names = [...changed];
      changed.clear();
      await Promise.all(names.filter((name) => ["base", "under", "over"].includes(name)).map(load));
      layout();
    }
    busy = false;
  }
  for (const name of ["base", "under", "over"]) model.on("change:" + name, () => { changed.add(name); update(); });
  for (const name of ["opacity", "solid", "arrangement", "split", "shape", "marker", "frame", "captions", "metres", "display_width", "description"]) {
    // Together with new pictures these wait for them; alone they act at once.
    model.on("change:" + name, () => { setTimeout(() => { if (!busy && !changed.size) layout(); }, 0); });
  }
  model.on("change:clipboard", () => {
    const text = model.get("clipboard");
    if (text && navigator.clipboard) navigator.clipboard.writeText(text).catch(() => {});
  });
  for (const name of ["base", "under", "over"]) changed.add(name);
  update();
  // Messages that were sent while this page was still being put together are lost: ask for everything again.
  model.send({ kind: "hello" });
  return () => { for (const url of Object.values(urls)) if (url) URL.revokeObjectURL(url); };
}

export default { render };
