/**
 * Draws what `kedge bench --against-full-attention --json` measured: milliseconds a token over the
 * context, for the model and for the same shape with MLA in every layer.
 *
 * usage: deno run tests/bench/attention_plot.ts < measured.json > plot.svg
 */

/** What is drawn of the measured JSON. */
export interface Comparison {
  readonly model: string;
  readonly weights: string;
  readonly adapter: string;
  readonly contexts: readonly Point[];
}

interface Point {
  readonly context: number;
  readonly hybridMs: number | null;
  readonly fullMs: number | null;
}

const [WIDTH, HEIGHT] = [640, 400];
const MARGIN = { left: 60, right: 150, top: 30, bottom: 50 };
const LINES = [
  { name: "3 of 4 layers KDA", color: "#1668b8", of: (point: Point) => point.hybridMs },
  { name: "all layers MLA", color: "#c2410c", of: (point: Point) => point.fullMs },
];

/** 4096 as 4k, 1048576 as 1M. */
function tokensText(tokens: number): string {
  if (tokens >= 2 ** 20) return `${tokens / 2 ** 20}M`;
  return tokens >= 1_024 ? `${tokens / 1_024}k` : `${tokens}`;
}

function plot(title: string, points: readonly Point[]): string {
  const times = points.flatMap((point) => LINES.map(({ of }) => of(point) ?? 0));
  const most = Math.max(...times) * 1.1;
  const contexts = points.map(({ context }) => Math.log2(Math.max(1, context)));
  const [first, last] = [Math.min(...contexts), Math.max(...contexts)];
  const innerWidth = WIDTH - MARGIN.left - MARGIN.right;
  const innerHeight = HEIGHT - MARGIN.top - MARGIN.bottom;
  const x = (context: number) =>
    MARGIN.left +
    (Math.log2(Math.max(1, context)) - first) / Math.max(1, last - first) * innerWidth;
  const y = (ms: number) => MARGIN.top + (1 - ms / most) * innerHeight;
  const text = (at: [number, number], content: string, anchor = "middle") =>
    `<text x="${at[0].toFixed(1)}" y="${
      at[1].toFixed(1)
    }" text-anchor="${anchor}">${content}</text>`;
  const marks = points.map(({ context }) =>
    text([x(context), HEIGHT - MARGIN.bottom + 18], tokensText(context))
  );
  const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const [ms, at] = [share * most, y(share * most)];
    return `<path d="M${MARGIN.left} ${at.toFixed(1)}H${WIDTH - MARGIN.right}" stroke="#ddd"/>` +
      text([MARGIN.left - 6, at + 4], ms.toFixed(most < 10 ? 1 : 0), "end");
  });
  const curves = LINES.map(({ name, color, of }) => {
    const known = points.filter((point) => of(point) !== null);
    const at = known.map((point) => [x(point.context), y(of(point)!)] as [number, number]);
    const path = at.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L");
    const end = at.at(-1);
    const label = end === undefined ? "" : text([end[0] + 8, end[1] + 4], name, "start");
    return `<path d="M${path}" fill="none" stroke="${color}" stroke-width="2"/>` +
      `<g fill="${color}">${label}</g>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" ` +
    `font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>` +
    [
      ...steps,
      ...marks,
      ...curves,
      text([MARGIN.left, 18], title, "start"),
      text([MARGIN.left + innerWidth / 2, HEIGHT - 10], "tokens of context"),
    ].join("\n") + "</svg>\n";
}

/** The picture as SVG. */
export function attentionPlot({ model, weights, adapter, contexts }: Comparison): string {
  const title = `ms a token, batch 1: ${model}, ${weights}, ${adapter}`;
  return plot(title.replaceAll("&", "&amp;").replaceAll("<", "&lt;"), contexts);
}

if (import.meta.main) {
  const report: Comparison = await new Response(Deno.stdin.readable).json();
  Deno.stdout.writeSync(new TextEncoder().encode(attentionPlot(report)));
}
