/** `kedge test`: the whole suite, a process for each file, so that a crash costs one file. */
import { UsageError } from "../errors.ts";
import { TEST_FILE_MS } from "../limits.ts";
import { ensureAdapter } from "./adapter.ts";
import { countTests, type TestCounts } from "./junit.ts";

const PROJECT = decodeURIComponent(new URL("../../", import.meta.url).pathname);

interface FileResult extends TestCounts {
  /** What the file printed. */
  readonly output: string;
}

/**
 * Runs the test files whose path contains `filter`. The last line printed is `N passed, N failed`;
 * exits with 1 when a test failed or, where CI=true, when one could not run. Throws UsageError when
 * no file matches.
 */
export async function test(filter = ""): Promise<void> {
  const files = findTestFiles("tests").filter((file) => file.includes(filter));
  if (files.length === 0) {
    throw new UsageError(`find tests: wanted a file whose path contains "${filter}", found none`);
  }
  const adapter = files.some(needsAdapter) ? await ensureAdapter() : null;
  if (adapter !== null) console.log(`adapter: ${adapter.description}`);
  const runnable = files.filter((file) => adapter !== null || !needsAdapter(file));
  const total = await runFiles(runnable);
  const notRun = files.length - runnable.length;
  if (notRun > 0) console.log(`${notRun} test files not run: they need a WebGPU adapter`);
  if (total.ignored > 0) console.log(`${total.ignored} tests not run: they are marked as ignored`);
  console.log(`${total.passed} passed, ${total.failed} failed`);
  const incomplete = notRun + total.ignored > 0 && Deno.env.get("CI") === "true";
  if (total.failed > 0 || incomplete) Deno.exit(1);
}

/** Test files below `folder`, as paths relative to the project, sorted. */
export function findTestFiles(folder: string): string[] {
  const files: string[] = [];
  for (const entry of Deno.readDirSync(`${PROJECT}${folder}`)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) files.push(...findTestFiles(path));
    else if (entry.name.endsWith("_test.ts")) files.push(path);
  }
  return files.sort();
}

/** Whether a test file can only run with a WebGPU adapter. */
export function needsAdapter(file: string): boolean {
  return file.startsWith("tests/kernels/") || file.endsWith("_gpu_test.ts");
}

/** Runs one file after the other, since many use all cores; prints each result as it comes. */
export async function runFiles(files: readonly string[]): Promise<TestCounts> {
  const total = { passed: 0, failed: 0, ignored: 0 };
  const folder = await Deno.makeTempDir({ prefix: "kedge-test-" });
  try {
    for (const [index, file] of files.entries()) {
      const began = performance.now();
      const result = await runFile(file, `${folder}/${index}.xml`);
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      if (result.failed > 0) console.log(result.output.trimEnd());
      const failed = result.failed > 0 ? `, ${result.failed} FAILED` : "";
      console.log(`${file}: ${result.passed} passed${failed} (${seconds} s)`);
      total.passed += result.passed;
      total.failed += result.failed;
      total.ignored += result.ignored;
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  return total;
}

/** A file that crashes, or that fails outside of its tests, counts as one failure more. */
async function runFile(file: string, reportPath: string): Promise<FileResult> {
  const { success, stdout, stderr, signal } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "--quiet", "-A", "--no-check", "--frozen", `--junit-path=${reportPath}`, file],
    cwd: PROJECT,
    env: { NO_COLOR: "1" },
    stdin: "null",
    signal: AbortSignal.timeout(TEST_FILE_MS),
  }).output();
  let output = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  if (signal !== null) output += `\n${file}: ended by ${signal} (limit ${TEST_FILE_MS / 1000} s)`;
  const { passed, failed, ignored } = await readReport(reportPath);
  return { passed, failed: success || failed > 0 ? failed : 1, ignored, output };
}

/** A process that crashed left no report. */
async function readReport(path: string): Promise<TestCounts> {
  try {
    return countTests(await Deno.readTextFile(path));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { passed: 0, failed: 0, ignored: 0 };
  }
}
