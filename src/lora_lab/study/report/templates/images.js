// Any image beside any other: a step slider, a filter by prompt, two cells side by side.
const holder = document.getElementById("image-data");
if (holder) explore(JSON.parse(holder.textContent));

function explore(data) {
  const PAGE = 24;
  const root = document.getElementById("explorer");
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const [table, status, more] = ["table", "status", "more"].map(find);
  const [checkpoint, choice, words, slider, shown] =
    ["checkpoint", "prompt", "words", "slider", "step"].map(find);
  const state = { checkpoint: 0, share: data.shares.length - 1, prompts: [], rows: PAGE, at: [0, 0] };
  const cell = (c, r, p, s) => data.cells[[c, r, p, s]];
  const source = (found) => `data:image/webp;base64,${found[0]}`;

  const element = (tag, facts = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(facts)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };
  const option = (value, text) => element("option", { value: String(value) }, text);
  const about = (r) => data.rows[r].label + (data.rows[r].note ? `, ${data.rows[r].note}` : "");

  // What is shown ---------------------------------------------------------------------------
  const drawn = (p) => data.rows.some((_, r) => cell(state.checkpoint, r, p, state.share));
  const chosen = () => {
    const typed = words.value.trim().toLowerCase();
    return data.prompts.map((_, p) => p).filter((p) => {
      const { name, text } = data.prompts[p];
      if (choice.value !== "" && Number(choice.value) !== p) return false;
      return `${name} ${text}`.toLowerCase().includes(typed);
    });
  };

  function render() {
    const wanted = chosen();
    state.prompts = wanted.filter(drawn);
    const rows = data.rows.slice(0, state.rows);
    table.tHead.replaceChildren(element("tr", {},
      element("th", { scope: "col", className: "corner" }, data.parameter),
      ...state.prompts.map((p) => element("th", { scope: "col", title: data.prompts[p].text },
        data.prompts[p].name,
        ...(state.prompts.length < 3 ? [element("small", {}, data.prompts[p].text)] : [])))));
    table.tBodies[0].replaceChildren(...rows.map((row, r) => element("tr",
      { className: row.base ? "base" : "" },
      element("th", { scope: "row" }, row.label, ...(row.note ? [element("small", {}, row.note)] : [])),
      ...state.prompts.map((p) => element("td", {}, picture(r, p))))));
    table.dataset.columns = Math.min(state.prompts.length, 4);
    state.at = [Math.min(state.at[0], rows.length - 1), Math.min(state.at[1], state.prompts.length - 1)];
    mark();
    more.hidden = rows.length === data.rows.length;
    more.textContent = `Show more values (${data.rows.length - rows.length} left)`;
    say(wanted.length - state.prompts.length, wanted.length);
  }

  function picture(r, p) {
    const found = cell(state.checkpoint, r, p, state.share);
    const name = `${data.parameter} ${about(r)}; ${data.prompts[p].name}; ${data.shares[state.share]}`;
    if (!found) return element("span", { className: "hole" }, data.rows[r].missing);
    if (!found[0]) {
      const link = element("a", { href: found[1] }, "open the file");
      return element("span", { className: "hole" }, found[4] || "no thumbnail", " ", link);
    }
    const button = element("button", { type: "button", tabIndex: -1 },
      element("img", { src: source(found), alt: name, decoding: "async" }));
    button.setAttribute("aria-label", `Compare ${name}`);
    button.addEventListener("click", () => { state.at = placeOf(button); mark(); compare(r, p); });
    return button;
  }

  function say(hidden, wanted) {
    slider.setAttribute("aria-valuetext", `${data.shares[state.share]} of the training`);
    shown.textContent = data.shares[state.share];
    const parts = [`${Math.min(state.rows, data.rows.length)} of ${data.rows.length} rows`,
      `${state.prompts.length} ${state.prompts.length === 1 ? "prompt" : "prompts"}`,
      `LoRA after ${data.shares[state.share]} of the training`];
    if (wanted === 0) parts.push("no prompt fits the filter");
    else if (hidden) parts.push(`${hidden} more only at other steps of the training`);
    status.textContent = `${parts.join(", ")}.`;
  }

  // One stop for Tab, arrows inside ---------------------------------------------------------
  const buttons = () => [...table.tBodies[0].rows].map((row) =>
    [...row.cells].slice(1).map((one) => one.querySelector("button, a")));
  const placeOf = (target) => {
    const row = buttons().findIndex((line) => line.includes(target));
    return [row, buttons()[row].indexOf(target)];
  };
  function mark() {
    const all = buttons().flat().filter(Boolean);
    for (const one of all) one.tabIndex = -1;
    const here = buttons()[state.at[0]]?.[state.at[1]] ?? all[0];
    if (here) here.tabIndex = 0;
  }
  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  table.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move || !event.target.closest("td")) return;
    event.preventDefault();
    const lines = buttons();
    let [row, column] = placeOf(event.target);
    do {
      row += move[0];
      column += move[1];
    } while (lines[row] && column in lines[row] && !lines[row][column]);
    if (!lines[row]?.[column]) return;
    state.at = [row, column];
    mark();
    lines[row][column].focus();
  });

  // Side by side ----------------------------------------------------------------------------
  const dialog = document.getElementById("compare");
  const sides = ["left", "right"].map((name) => dialog.querySelector(`[data-side="${name}"]`));
  const wipe = dialog.querySelector('[data-part="wipe"]');
  const over = dialog.querySelector('[data-part="over"]');
  const told = dialog.querySelector('[data-part="told"]');
  const keep = dialog.querySelector('[data-part="keep"]');
  const picks = sides.map((side) => {
    const pick = {};
    for (const select of side.querySelectorAll("select")) pick[select.dataset.part] = select;
    pick.row.append(...data.rows.map((_, r) => option(r, about(r))));
    pick.prompt.append(...data.prompts.map((one, p) => option(p, one.name)));
    pick.share.append(...data.shares.map((share, s) => option(s, share)));
    pick.checkpoint.append(...data.checkpoints.map((name, c) => option(c, name)));
    pick.checkpoint.closest("label").hidden = data.checkpoints.length < 2;
    for (const select of Object.values(pick)) select.addEventListener("change", show);
    return pick;
  });
  const set = (pick, c, r, p, s) => {
    [pick.checkpoint.value, pick.row.value, pick.prompt.value, pick.share.value] = [c, r, p, s];
  };

  function compare(r, p) {
    const other = r === 0 ? Math.min(data.rows.findIndex((row) => !row.base) + 1 || 1, data.rows.length) - 1 : 0;
    if (!keep.checked) set(picks[0], state.checkpoint, r === 0 ? r : 0, p, state.share);
    set(picks[1], state.checkpoint, r === 0 && !keep.checked ? other : r, p, state.share);
    show();
    dialog.showModal();
  }

  function show() {
    const found = picks.map((pick, index) => {
      const [c, r, p, s] = [pick.checkpoint, pick.row, pick.prompt, pick.share].map((x) => Number(x.value));
      const one = cell(c, r, p, s);
      const frame = sides[index].querySelector(".frame");
      const caption = sides[index].querySelector("figcaption");
      const label = `${about(r)}; ${data.prompts[p].name}; ${data.shares[s]}`;
      if (one && one[0]) frame.replaceChildren(element("img", { src: source(one), alt: `${data.parameter} ${label}` }));
      else frame.replaceChildren(element("p", { className: "hole" }, (one && one[4]) || (one ? "no thumbnail" : missing(r, p, s))));
      caption.replaceChildren(data.prompts[p].text,
        ...(one ? [element("br"), `step ${one[2]}${one[3] === null ? "" : `, seed ${one[3]}`} · `,
          element("a", { href: one[1] }, "full image")] : []));
      frame.classList.toggle("base", data.rows[r].base);
      return { one, label };
    });
    const both = found.every(({ one }) => one && one[0]);
    over.hidden = !both;
    if (both) {
      over.querySelector(".under").src = source(found[0].one);
      over.querySelector(".upper").src = source(found[1].one);
    }
    told.textContent = `Left: ${found[0].label}. Right: ${found[1].label}.`;
  }
  const missing = (r, p, s) => (data.cells && data.rows.some((_, other) =>
    data.checkpoints.some((_, c) => cell(c, other, p, s))) ? data.rows[r].missing : "not drawn at this step");

  wipe.addEventListener("input", () => {
    over.querySelector(".upper").style.clipPath = `inset(0 0 0 ${wipe.value}%)`;
    wipe.setAttribute("aria-valuetext", `${wipe.value} % of the left image`);
  });

  // Controls --------------------------------------------------------------------------------
  checkpoint.append(...data.checkpoints.map((name, c) => option(c, name)));
  checkpoint.closest("label").hidden = data.checkpoints.length < 2;
  choice.append(option("", `All ${data.prompts.length} prompts`), ...data.prompts.map((one, p) =>
    option(p, one.text ? `${one.name}: ${one.text.slice(0, 70)}` : one.name)));
  slider.max = data.shares.length - 1;
  slider.value = state.share;
  slider.closest("label").hidden = data.shares.length < 2;
  checkpoint.addEventListener("change", () => { state.checkpoint = Number(checkpoint.value); render(); });
  choice.addEventListener("change", render);
  words.addEventListener("input", render);
  slider.addEventListener("input", () => { state.share = Number(slider.value); render(); });
  more.addEventListener("click", () => { state.rows += PAGE; render(); });
  root.hidden = false;
  render();
}
