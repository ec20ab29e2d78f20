/** `kedge test`: what it runs and how it counts. */
import assert from "node:assert";
import { countTests } from "../../runtime/cli/junit.ts";
import { findTestFiles, needsAdapter, runFiles } from "../../runtime/cli/test.ts";
import { kedge } from "../tools/kedge.ts";

Deno.test("countTests() counts tests and not their steps", () => {
  const report = `<testsuites><testsuite name="a_test.ts">
    <testcase name="plain" classname="a" time="0.1"></testcase>
    <testcase name="empty" classname="a"/>
    <testcase name="bad &lt;x&gt;" classname="a"><failure message="no">trace</failure></testcase>
    <testcase name="cut off" classname="a"><error message="Cancelled"/></testcase>
    <testcase name="left out" classname="a"><skipped/></testcase>
    <testcase name="stepped" classname="a"><failure message="1 test step failed"/></testcase>
    <testcase name="stepped &gt; one" classname="a"><failure message="x">trace</failure></testcase>
    <testcase name="stepped &gt; two" classname="a"></testcase>
    <testcase name="a &gt; b" classname="a"></testcase>
  </testsuite></testsuites>`;
  assert.deepEqual(countTests(report), { passed: 3, failed: 3, ignored: 1 });
  assert.deepEqual(countTests(""), { passed: 0, failed: 0, ignored: 0 });
});

const FILES: Readonly<Record<string, string>> = {
  good: `Deno.test("a", () => {}); Deno.test("b", () => {});`,
  bad: `Deno.test("a", () => {}); Deno.test("b", () => { throw new Error("broken"); });`,
  left_out: `Deno.test.ignore("a", () => {});`,
  does_not_load: `throw new Error("broken at load");`,
  crashes: `Deno.test("a", () => { Deno.kill(Deno.pid, "SIGKILL"); });`,
};

Deno.test("runFiles() counts a file that crashes or does not load as a failure", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kedge-cli-test-" });
  try {
    const paths = Object.entries(FILES).map(([name, text]) => {
      const path = `${folder}/${name}_test.ts`;
      Deno.writeTextFileSync(path, text);
      return path;
    });
    assert.deepEqual(await runFiles(paths), { passed: 3, failed: 3, ignored: 1 });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("findTestFiles() finds the tests, needsAdapter() those of the shaders", () => {
  const files = findTestFiles("tests");
  assert.ok(files.includes("tests/runtime/cli_test_test.ts"));
  assert.ok(files.every((file) => /^tests\/.*_test\.ts$/.test(file)));
  assert.deepEqual(files, files.toSorted());
  assert.ok(needsAdapter("tests/kernels/matmul_test.ts"));
  assert.ok(needsAdapter("tests/golden/webgpu_gpu_test.ts"));
  assert.ok(!needsAdapter("tests/tidy_test.ts"));
});

Deno.test("test runs the files that a filter names and ends with the counts", async () => {
  const { code, out, err } = await kedge(["test", "tests/runtime/unroll_test.ts"]);
  assert.equal(code, 0, out + err);
  assert.match(
    out,
    /^tests\/runtime\/unroll_test\.ts: \d+ passed \(\d+\.\d s\)\n\d+ passed, 0 failed\n$/,
  );
  const nothing = await kedge(["test", "no such file"]);
  assert.equal(nothing.code, 2);
  assert.match(nothing.err, /^kedge: find tests: wanted .*"no such file", found none\n$/);
});
