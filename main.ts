/**
 * The command line: parses, then calls one command of runtime/cli/. Each command is imported when
 * it runs, so that none pays for what another needs.
 */
import { Command, CommanderError, Option } from "commander";
import {
  byteSize,
  decimalNumber,
  nonEmpty,
  origins,
  scopes,
  wholeNumber,
  wholeNumbers,
} from "./runtime/cli/values.ts";
import { KedgeError } from "./runtime/errors.ts";
import {
  BENCH_BATCH_MAX,
  BENCH_SECONDS_MAX,
  DRAIN_SECONDS_DEFAULT,
  DRAIN_SECONDS_MAX,
  MAX_CONTEXT_TOKENS,
  MAX_TEMPERATURE,
  QUEUE_REQUESTS_MAX,
  REQUEST_SECONDS_MAX,
  SLOTS_MAX,
  SYNTH_SKEW_DEFAULT,
  SYNTH_SKEW_MAX,
} from "./runtime/limits.ts";
import { LOG_LEVELS } from "./runtime/log_level.ts";
import { WEIGHT_CHOICES } from "./runtime/weights/resident.ts";
import { VERSION } from "./runtime/version.ts";

/** Commander's message as one line; further lines hold its suggestion. */
function usageLine(message: string): string {
  const line = message.trim().replace(/^error: /, "").replaceAll(/\s*\n\s*/g, " ")
    .replace(" is invalid. ", " is invalid: ");
  return `kedge: ${line.replace(/\.$/, "")}; see kedge --help\n`;
}

function modelOption(): Option {
  return new Option("-m, --model <dir>", "model folder (default: the embedded kedge-tiny)")
    .env("KEDGE_MODEL").argParser(nonEmpty);
}

function deviceOption(): Option {
  return new Option(
    "-d, --device <kind>",
    "what computes; auto takes a hardware WebGPU adapter where there is one, else the CPU",
  ).choices(["auto", "webgpu", "cpu"]).default("auto").env("KEDGE_DEVICE");
}

function tuningOption(): Option {
  return new Option(
    "--tuning <file>",
    "shapes of the webgpu device's kernels, as JSON (default: by the adapter's class)",
  ).env("KEDGE_TUNING").argParser(nonEmpty);
}

function weightsOption(): Option {
  return new Option(
    "-w, --weights <format>",
    "what weights are kept as (default: the best that fits)",
  ).choices(WEIGHT_CHOICES).env("KEDGE_WEIGHTS");
}

function addServe(program: Command): void {
  program.command("serve")
    .description("Serve a model over HTTP, with the OpenAI API")
    .addOption(modelOption())
    .addOption(deviceOption())
    .addOption(tuningOption())
    .addOption(weightsOption())
    .addOption(
      new Option("--host <address>", "address to listen on; only this machine unless changed")
        .default("127.0.0.1").env("KEDGE_HOST").argParser(nonEmpty),
    )
    .addOption(
      new Option("-p, --port <number>", "port to listen on; 0 picks a free one")
        .default(11500).env("KEDGE_PORT").argParser(wholeNumber(0, 65535)),
    )
    .addOption(
      new Option("--slots <count>", "sequences computed at the same time")
        .env("KEDGE_SLOTS").argParser(wholeNumber(1, SLOTS_MAX)),
    )
    .addOption(
      new Option("--context <tokens>", "most tokens of prompt and completion together")
        .env("KEDGE_CONTEXT").argParser(wholeNumber(1, MAX_CONTEXT_TOKENS)),
    )
    .addOption(
      new Option("--memory <size>", "most memory of the device, as 6G or 900M (default: as needed)")
        .env("KEDGE_MEMORY").argParser(byteSize),
    )
    .addOption(
      new Option("--chat-template <file>", "Jinja template of conversations (default: Kimi's)")
        .env("KEDGE_CHAT_TEMPLATE").argParser(nonEmpty),
    )
    .addOption(
      new Option("--request-timeout <seconds>", "longest time of one request (default: none)")
        .env("KEDGE_REQUEST_TIMEOUT").argParser(wholeNumber(1, REQUEST_SECONDS_MAX)),
    )
    .addOption(
      new Option("--queue <requests>", "requests that may wait beside those that run")
        .env("KEDGE_QUEUE").argParser(wholeNumber(0, QUEUE_REQUESTS_MAX)),
    )
    .addOption(
      new Option("--keys <file>", "API keys, as kedge keys add makes them; who has none stays out")
        .env("KEDGE_KEYS").argParser(nonEmpty),
    )
    .option("--insecure", "listen where other machines can connect, without keys")
    .addOption(
      new Option("--allow-origin <origin>", "web page that may use the server; may be repeated")
        .default([], "none").argParser(origins),
    )
    .addOption(
      new Option("--drain-seconds <seconds>", "how long running requests may finish at the end")
        .default(DRAIN_SECONDS_DEFAULT).env("KEDGE_DRAIN_SECONDS")
        .argParser(wholeNumber(0, DRAIN_SECONDS_MAX)),
    )
    .addOption(
      new Option("--log-level <level>", "least level that is logged, on standard error")
        .choices(LOG_LEVELS).default("info").env("KEDGE_LOG_LEVEL"),
    )
    .addHelpText(
      "after",
      "\nExamples:\n  kedge serve\n  kedge serve --model /models/Kimi-Linear --port 8080\n" +
        "\nSIGINT or SIGTERM ends it: it takes no new requests and finishes those that run." +
        "\nSIGHUP reads the keys again.",
    )
    .action(async (options) => (await import("./runtime/cli/serve.ts")).serve(options));
}

function addKeys(program: Command): void {
  const fileOption = () =>
    new Option("--file <path>", "key file (default: kedge/keys.json in the user's configuration)")
      .env("KEDGE_KEYS").argParser(nonEmpty);
  const keys = program.command("keys").description("Make, list and revoke API keys");
  keys.command("add")
    .description("Make a key and print it, this once")
    .argument("<name>", "whose key it is, for the log and for kedge keys revoke")
    .addOption(
      new Option("--scope <scopes>", "what it may do: infer, metrics, or admin for everything")
        .default(["infer"], "infer").argParser(scopes),
    )
    .addOption(
      new Option("--requests <count>", "most requests at once (default: no limit of its own)")
        .argParser(wholeNumber(1, QUEUE_REQUESTS_MAX)),
    )
    .addOption(fileOption())
    .action(async (name, options) => (await import("./runtime/cli/keys.ts")).addKey(name, options));
  keys.command("list")
    .description("Print the keys' names, scopes and limits")
    .addOption(fileOption())
    .action(async (options) => (await import("./runtime/cli/keys.ts")).listKeys(options));
  keys.command("revoke")
    .description("Take a key out of the file")
    .argument("<name>", "the key's name")
    .addOption(fileOption())
    .action(async (name, options) =>
      (await import("./runtime/cli/keys.ts")).revokeKey(name, options)
    );
}

function addRun(program: Command): void {
  program.command("run")
    .description("Print one completion, as it is made")
    .argument("<prompt>", "what to say to the model")
    .addOption(modelOption())
    .addOption(deviceOption())
    .addOption(tuningOption())
    .addOption(weightsOption())
    .addOption(
      new Option("-n, --max-tokens <count>", "most tokens to generate (default: what fits)")
        .argParser(wholeNumber(1, MAX_CONTEXT_TOKENS)),
    )
    .addOption(
      new Option("-t, --temperature <number>", "0 always takes the likeliest token")
        .argParser(decimalNumber(0, MAX_TEMPERATURE)),
    )
    .addOption(
      new Option("--seed <number>", "makes the draws repeatable (default: a random one)")
        .argParser(wholeNumber(0, Number.MAX_SAFE_INTEGER)),
    )
    .option("--raw", "continue the prompt as it stands, without the chat layout")
    .action(async (prompt, options) => (await import("./runtime/cli/run.ts")).run(prompt, options));
}

function addBench(program: Command): void {
  program.command("bench")
    .description("Measure this machine with a model and print a table")
    .addOption(modelOption())
    .addOption(deviceOption())
    .addOption(tuningOption())
    .addOption(weightsOption())
    .addOption(
      new Option("--memory <size>", "most memory of the device, as 76G").argParser(byteSize),
    )
    .addOption(
      new Option("--synthetic <shape>", "random weights for 48b or a config.json, without files")
        .argParser(nonEmpty),
    )
    .addOption(
      new Option("--contexts <tokens>", "decode after so many tokens each, as 4K,128K")
        .argParser(wholeNumbers(0, MAX_CONTEXT_TOKENS)),
    )
    .addOption(
      new Option("--batches <counts>", "decode so many sequences at once each, as 1,8,64")
        .argParser(wholeNumbers(1, BENCH_BATCH_MAX)),
    )
    .addOption(
      new Option("--prefills <tokens>", "prefill prompts of so many tokens each, as 512,8K")
        .argParser(wholeNumbers(1, MAX_CONTEXT_TOKENS)),
    )
    .addOption(
      new Option("--seconds <seconds>", "least time of each of these (default: 1)")
        .argParser(decimalNumber(0, BENCH_SECONDS_MAX)),
    )
    .option("--against-full-attention", "decode beside the same model with MLA in every layer")
    .option("--full", "more repetitions")
    .option("--json", "print one JSON object instead of the table")
    .addHelpText(
      "after",
      "\n--synthetic, --contexts, --batches and --prefills measure the device's steps alone;" +
        "\nwithout them the whole engine is measured. Past latents are zeros.",
    )
    .action(async (options) => (await import("./runtime/cli/bench.ts")).bench(options));
}

function addSynth(program: Command): void {
  program.command("synth")
    .description("Write a model folder with random weights, to measure without the real ones")
    .argument("<folder>", "folder to make")
    .addOption(
      new Option("--shape <shape>", "48b or the path of a config.json").default("48b")
        .argParser(nonEmpty),
    )
    .addOption(
      new Option("--format <format>", "what the weights are stored as").choices(WEIGHT_CHOICES)
        .default("q4"),
    )
    .addOption(
      new Option("--skew <number>", "deviation of the logarithm of the experts' shares of tokens")
        .default(SYNTH_SKEW_DEFAULT).argParser(decimalNumber(0, SYNTH_SKEW_MAX)),
    )
    .addOption(
      new Option("--seed <number>", "makes the weights repeatable").default(1)
        .argParser(wholeNumber(0, 2 ** 32 - 1)),
    )
    .action(async (folder, options) =>
      (await import("./runtime/cli/synth.ts")).synth(folder, options)
    );
}

function addTest(program: Command): void {
  program.command("test")
    .description("Run the test suite; installs software Vulkan where it may and none is there")
    .argument("[filter]", "run only test files whose path contains this")
    .action(async (filter) => (await import("./runtime/cli/test.ts")).test(filter));
}

function createProgram(): Command {
  const program = new Command("kedge")
    .description("Serves Kimi-Linear models on the GPU through WebGPU, or on the CPU.")
    .version(VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    .addHelpText("after", "\nkedge COMMAND --help describes a command's options.")
    .configureHelp({ helpWidth: 100 })
    .configureOutput({ outputError: (message, write) => write(usageLine(message)) })
    .exitOverride();
  addServe(program);
  addKeys(program);
  addRun(program);
  addBench(program);
  addSynth(program);
  addTest(program);
  return program;
}

/** Exit status of a command that ended with `error`, after printing what it was. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof KedgeError) {
    console.error(`kedge: ${error.message}`);
    return error.exitCode;
  }
  console.error(error);
  return 1;
}

try {
  await createProgram().parseAsync(Deno.args, { from: "user" });
} catch (error) {
  Deno.exit(report(error));
}
