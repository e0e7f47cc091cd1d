"use strict";
// Whatever comes from documents goes into the page as text (textContent), never as markup.

const $ = (id) => document.getElementById(id);
const SHOWN = 40; // bars of a list
let about = null;
let asked = 0; // questions so far: an answer to an earlier one is not shown

function make(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

const digits = (number) => number.toFixed(number >= 100 ? 1 : 3);

async function ask(path, parameters, options) {
  const answer = await fetch(parameters ? `${path}?${new URLSearchParams(parameters)}` : path, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

const heaviest = (rows) => Math.max(...rows.map((row) => row.value), 1e-9);

// A list of bars; each row is {name, value, note, kind}. Lengths are for the eye, numbers for everyone.
function bars(rows, list = make("ul", undefined, "bars"), longest = heaviest(rows)) {
  list.replaceChildren(
    ...rows.slice(0, SHOWN).map((row) => {
      const item = make("li", undefined, row.kind);
      const bar = make("span", undefined, "bar");
      bar.setAttribute("aria-hidden", "true");
      bar.append(make("span"));
      bar.firstChild.style.width = `${(100 * row.value) / longest}%`;
      item.append(make("span", row.name, "name"), bar, make("span", digits(row.value), "value"));
      if (row.note) item.title = row.note;
      return item;
    }),
  );
  if (rows.length > SHOWN) list.append(make("li", `and ${rows.length - SHOWN} more`, "note"));
  return list;
}

const partsAsRows = (parts) =>
  parts.map((part) => ({
    name: part.kind === "word" ? `${part.name} (word)` : part.name,
    value: part.score,
    kind: part.kind,
    note: `${digits(part.query)} of the query × ${digits(part.document)} of the document`,
  }));

function question() {
  return { q: $("q").value, prune: $("prune").value };
}

function weighed(more = {}) {
  const weight = $("words").checked ? $("bm25").value : "0";
  return { ...question(), bm25: weight, ...more };
}

function search(more) {
  const parameters = Object.entries(weighed({ k: $("k").value, ...more }));
  const split = (id) => $(id).value.split(",").map((one) => one.trim()).filter(Boolean);
  for (const id of split("ids")) parameters.push(["id", id]);
  if (about.fields) for (const one of split("filter")) parameters.push(["filter", one]);
  return ask("/search", parameters);
}

function showQuery(answer) {
  bars(
    answer.tokens.map((token) => ({
      name: token.kept ? token.token : `${token.token} (left out)`,
      value: token.weight,
      kind: token.kept ? "token" : "left-out",
      note: token.documents === null ? "" : `in ${token.documents} documents`,
    })),
    $("query-tokens"),
  );
  const facts = [answer.active_dims === 1 ? "1 token" : `${answer.active_dims} tokens`];
  if (answer.flops !== null) facts.push(`FLOPS ${answer.flops.toFixed(2)}: so many of them a document has on average`);
  $("query-facts").textContent = answer.query.trim() ? facts.join("; ") : "";
}

// A document's text with its weights in it, and the tokens that it has beyond its text.
function showDocument(answer) {
  const found = [];
  const most = Math.max(...answer.tokens.map((token) => token.weight), 1e-9);
  if (answer.pieces) {
    const text = make("p", undefined, "pieces");
    for (const piece of answer.pieces) {
      if (!piece.weight) {
        text.append(piece.text);
        continue;
      }
      const mark = make("mark", piece.text);
      mark.style.setProperty("--share", (piece.weight / most).toFixed(3));
      mark.title = `weight ${digits(piece.weight)}`;
      text.append(mark);
    }
    found.push(text);
    if (answer.cut) found.push(make("p", "The text goes on.", "note"));
  }
  for (const [title, inside] of [["Expansions: tokens beyond the text", false], ["Tokens of the text", true]]) {
    const rows = answer.tokens.filter((token) => token.in_text === inside);
    if (rows.length) found.push(make("h4", `${title} (${rows.length})`));
    if (rows.length) found.push(bars(rows.map((token) => ({ name: token.token, value: token.weight, kind: "token" })), undefined, most));
  }
  return found;
}

function showHits(list, hits, how) {
  const longest = heaviest(partsAsRows(hits.flatMap((hit) => hit.parts ?? []))); // hits compare by eye
  list.replaceChildren(
    ...hits.map((hit) => {
      const item = make("li");
      const head = make("div", undefined, "head");
      const score = make("span", digits(hit.score));
      score.setAttribute("aria-label", `score ${digits(hit.score)}`);
      head.append(make("h3", `${hit.rank}. ${hit.id}`), score);
      item.append(head);
      if (hit.text !== null) item.append(make("p", hit.cut ? `${hit.text}…` : hit.text, "text"));
      if (hit.parts) item.append(bars(partsAsRows(hit.parts), undefined, longest));
      const more = make("details");
      const inside = make("div");
      more.append(make("summary", "The document's tokens"), inside);
      more.addEventListener("toggle", async () => {
        if (!more.open || inside.firstChild) return;
        try {
          inside.replaceChildren(...showDocument(await ask("/explain", { ...how, id: hit.id })));
        } catch (error) {
          inside.textContent = error.message;
        }
      });
      item.append(more);
      return item;
    }),
  );
}

async function update() {
  const number = ++asked;
  for (const [id, as] of [["k", String], ["bm25", String], ["prune", (value) => `${Math.round(value * 100)} %`]])
    $(`${id}-value`).value = as($(id).value);
  $("words-alone").hidden = !$("beside").checked;
  try {
    if (!about.index) {
      const answer = await ask("/encode_query", question());
      if (number === asked) showQuery(answer);
    } else {
      const how = weighed();
      const alone = { bm25: "1", model: "false" };
      const [answer, words] = await Promise.all([search({}), $("beside").checked ? search(alone) : null]);
      if (number !== asked) return;
      showQuery(answer);
      showHits($("hits"), answer.hits, how);
      if (words) showHits($("alone"), words.hits, { ...how, ...alone });
      const count = answer.hits.length === 1 ? "1 hit" : `${answer.hits.length} hits`;
      $("status").textContent = answer.query.trim() ? `${count} in ${answer.milliseconds.toFixed(1)} ms` : "";
    }
    if (number === asked) $("error").textContent = "";
  } catch (error) {
    if (number === asked) $("error").textContent = error.message;
  }
}

async function encode(event) {
  event.preventDefault();
  const place = $("document");
  place.textContent = "Encoding…";
  try {
    const answer = await ask("/encode_document", null, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text: $("text").value, ...question() }),
    });
    const score = make("p", `Score for the query: ${digits(answer.score)}; ${answer.active_dims} tokens`);
    place.replaceChildren(score, bars(partsAsRows(answer.parts)), ...showDocument(answer));
  } catch (error) {
    place.textContent = error.message;
  }
}

async function start() {
  about = await ask("/about");
  document.title = `${about.name} – st-l0 demo`;
  $("name").textContent = about.name;
  $("about").textContent = about.index ? `${about.documents.toLocaleString("en")} documents; model ${about.model}` : "A model without an index";
  for (const [name, there] of [["of-index", about.index], ["of-words", about.bm25 !== null], ["of-fields", about.fields]])
    for (const node of document.getElementsByClassName(name)) node.hidden = !there;
  if (about.bm25_weight) {
    $("bm25").max = String(Math.max(10, Math.ceil(2 * about.bm25_weight)));
    $("bm25").value = String(about.bm25_weight);
  }
  $("form").addEventListener("submit", (event) => event.preventDefault());
  $("form").addEventListener("input", update);
  $("document-form").addEventListener("submit", encode);
  await update();
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  $("error").textContent = error.message;
});
