/** Counts the results in a JUnit report as `deno test --junit-path` writes it. */

export interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  /** Tests that are marked to be ignored. */
  readonly ignored: number;
}

/** Counts tests; the steps of a test, reported as `test > step`, count with it. */
export function countTests(report: string): TestCounts {
  const tests = [...report.matchAll(/<testcase name="([^"]*)"[^>]*?(?:\/>|>(.*?)<\/testcase>)/gs)]
    .map((match) => ({ name: match[1]!, body: match[2] ?? "" }));
  const names = new Set(tests.map((test) => test.name));
  const counts = { passed: 0, failed: 0, ignored: 0 };
  for (const { name, body } of tests) {
    if (isStep(name, names)) continue;
    if (/<(failure|error)\b/.test(body)) counts.failed++;
    else if (/<skipped\b/.test(body)) counts.ignored++;
    else counts.passed++;
  }
  return counts;
}

/** Whether some beginning of `name`, up to a separator, is a test of its own. */
function isStep(name: string, names: ReadonlySet<string>): boolean {
  const separator = " &gt; ";
  let at = name.indexOf(separator);
  while (at !== -1) {
    if (names.has(name.slice(0, at))) return true;
    at = name.indexOf(separator, at + 1);
  }
  return false;
}
