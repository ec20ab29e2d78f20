/** The documents' picture and table of full attention say what was measured. */
import assert from "node:assert/strict";
import { byteText } from "../../runtime/weights/progress.ts";
import { attentionPlot, type Comparison } from "../bench/attention_plot.ts";

const DOCS = new URL("../../docs/", import.meta.url);

interface Row {
  readonly context: number;
  readonly hybridMs: number;
  readonly fullMs: number;
  readonly hybridCacheBytes: number;
  readonly fullCacheBytes: number;
}

const measured: Omit<Comparison, "contexts"> & { readonly contexts: readonly Row[] } = JSON.parse(
  Deno.readTextFileSync(new URL("against_full_attention.json", DOCS)),
);

Deno.test("docs/against_full_attention.svg is drawn from the JSON beside it", () => {
  const drawn = Deno.readTextFileSync(new URL("against_full_attention.svg", DOCS));
  assert.ok(drawn === attentionPlot(measured), "wanted the picture made anew");
});

Deno.test("the table in docs/performance.md has the JSON's numbers", () => {
  const text = Deno.readTextFileSync(new URL("performance.md", DOCS));
  const section = text.split("\n## ").find((part) => part.startsWith("Beside full attention"))!;
  const rows = section.split("\n").filter((line) => /^\| +[\d,]+ +\|/.test(line))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  const times = measured.contexts.map(({ hybridMs, fullMs }) => fullMs / hybridMs);
  // The times may be kept to two digits only, as the table has them.
  rows.forEach((cells, index) => {
    const [ratio] = cells.splice(3, 1);
    assert.ok(Math.abs(Number(ratio) - times[index]!) < 0.0101, `${ratio}, ${times[index]}`);
  });
  const wanted = measured.contexts.map((row) => [
    row.context.toLocaleString("en"),
    row.hybridMs.toFixed(2),
    row.fullMs.toFixed(2),
    byteText(row.hybridCacheBytes),
    byteText(row.fullCacheBytes),
    (row.fullCacheBytes / row.hybridCacheBytes).toFixed(2),
  ]);
  assert.deepEqual(rows, wanted);
});

Deno.test("attentionPlot() leaves out what did not fit and escapes names", () => {
  const contexts = [
    { context: 1_024, hybridMs: 1, fullMs: 2 },
    { context: 2 ** 20, hybridMs: 3, fullMs: null },
  ];
  const svg = attentionPlot({ model: "a<b", weights: "q4", adapter: "x & y", contexts });
  assert.match(svg, /a&lt;b, q4, x &amp; y/);
  assert.match(svg, />1k<[\s\S]*>1M</);
  assert.equal(svg.match(/<path d="M[\d.]+ [\d.]+L/g)?.length, 1);
});
