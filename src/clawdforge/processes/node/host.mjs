// The acpx host: one acpx runtime with one ACP session on it, driven over stdin and stdout.
//
//   node host.mjs RUNTIME_DIR [--check]
//
// RUNTIME_DIR holds `node_modules/acpx`. One JSON object a line, both ways:
//
//   in   open        argv, cwd, session_key, permissions, model, resume, max_line_bytes,
//                    rehearse                                            (once, first)
//        prompt      turn, text                                          (one at a time)
//        cancel      turn                                                (another turn's: a no-op)
//        answer      request_id, option_id (null: cancelled)
//   out  spawned     pid
//        opened      agent_session_id, can_resume, name, version, rehearsed,
//                    offers: models, modes, configOptions as the agent gave them, if it did
//        acp         message: what the agent wrote, byte for byte
//        skipped     count: lines that were not JSON objects, or longer than max_line_bytes
//        permission  request_id, tool_call, options                      (mode `ask` only)
//        result      turn, stop_reason
//        failed      turn (null: the opening), kind, reason
//        exited      reason: the agent's process has ended, and so does this one
//
// The end of the input is the word to close. Rules kept here: an agent is never started twice and a
// conversation never silently begun anew (a resuming `open` loads or fails); nothing is written to
// disk; the input is read whatever the output does, and the agent is read only while the output
// moves.

import { randomUUID } from "node:crypto";
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import module, { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { PassThrough, Transform } from "node:stream";
import { pathToFileURL } from "node:url";

const ACPX_VERSION = "0.19.1"; // of package.json; a test compares them
const UNSENT_LIMIT_BYTES = 4 * 1024 * 1024; // past this, the agent waits for our reader
const LAST_WORDS_MS = 200; // for output still in the pipe when the agent has ended
const SHUTDOWN_MS = 3000; // acpx closes an agent in 0.5 s, a stubborn one in 2.1 s
const REHEARSAL_TURNS = 5; // measured: 12 ms, then 3, 3, 2, 1.5
const REHEARSAL_MS = 2000; // for all of them; an ordinary one takes 40 ms
const NO_PID = 2 ** 30; // beyond any kernel's pid_max: whatever acpx does with it hits nobody
const AUTH_REQUIRED = -32000; // ACP, error codes
const OPTION_KINDS = ["allow_once", "allow_always", "reject_once", "reject_always"];

class Failure extends Error {
  constructor(kind, reason) {
    super(reason);
    this.kind = kind;
  }
}

// --- output ------------------------------------------------------------------------------------

const isCongested = () => process.stdout.writableLength > UNSENT_LIMIT_BYTES;
const send = (record) => process.stdout.write(`${JSON.stringify(record)}\n`);
const sendVerbatim = (line) => process.stdout.write(`{"type":"acp","message":${line}}\n`);
const aloud = { send, sendVerbatim };
const silent = { send: (record) => JSON.stringify(record), sendVerbatim: (line) => line };
const sendLast = (record) => process.stdout.write(`${JSON.stringify(record)}\n`, () => process.exit());

// --- what the agent writes ---------------------------------------------------------------------

// Stands between the agent's stdout and acpx. Hands each line that holds a JSON object to `see` and
// on to acpx; leaves out and counts the rest, which acpx would drop in silence (or, past its own
// limit, end the connection for).
class Screen extends Transform {
  constructor(maxLineBytes, see, out) {
    super();
    Object.assign(this, { maxLineBytes, see, out, kept: [], keptBytes: 0, skipped: 0 });
  }

  _transform(chunk, _encoding, done) {
    let start = 0;
    for (let end; (end = chunk.indexOf(10, start)) >= 0; start = end + 1) {
      this.keep(chunk.subarray(start, end));
      this.endLine();
    }
    this.keep(chunk.subarray(start));
    this.report();
    if (isCongested()) process.stdout.once("drain", done);
    else done();
  }

  _flush(done) {
    this.endLine();
    this.report();
    done();
  }

  keep(piece) {
    this.keptBytes += piece.length;
    if (this.keptBytes <= this.maxLineBytes) this.kept.push(piece);
    else this.kept.length = 0;
  }

  endLine() {
    const isTooLong = this.keptBytes > this.maxLineBytes;
    const line = Buffer.concat(this.kept).toString("utf8").trim();
    this.kept = [];
    this.keptBytes = 0;
    const message = isTooLong ? undefined : parseObject(line);
    if (message) {
      this.see(message, line);
      this.push(`${line}\n`);
    } else if (isTooLong || line) this.skipped += 1;
  }

  report() {
    if (this.skipped) this.out.send({ type: "skipped", count: this.skipped });
    this.skipped = 0;
  }
}

function parseObject(line) {
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

// Knows by the requests that go out which of the agent's messages are events: what it sends once
// the session is there (a load replays before it answers), and the response to a prompt.
class Wire {
  constructor(out) {
    Object.assign(this, { out, initializeId: undefined, initialized: undefined, isOpen: false });
    Object.assign(this, { openingId: undefined, openingError: undefined, offers: {} });
    Object.assign(this, { promptId: undefined, promptError: undefined });
  }

  sent(message) {
    if (message.method === "initialize") this.initializeId = message.id;
    if (["session/new", "session/load", "session/resume"].includes(message.method)) this.openingId = message.id;
    if (message.method === "session/prompt") this.promptId = message.id;
  }

  received(message, line) {
    if ("method" in message) {
      if (this.isOpen && (message.method === "session/update" || "id" in message)) this.out.sendVerbatim(line);
    } else if (message.id === undefined) return;
    else if (message.id === this.initializeId) this.initialized ??= message.result;
    else if (message.id === this.promptId) {
      this.promptId = undefined;
      this.promptError = message.error;
      this.out.sendVerbatim(line);
    } else if (message.id === this.openingId) {
      this.isOpen = "result" in message;
      const { models, modes, configOptions } = message.result ?? {};
      this.offers = { models, modes, configOptions };
      this.openingError = message.error;
    }
  }
}

// --- acpx --------------------------------------------------------------------------------------

// acpx's public export gives neither the agent's messages as they are, nor the end of a turn
// without a second's wait. A subclass of its client gives both; it leans on names that are not
// public, so everything used is looked for first, and what is missing is named.
async function loadAcpx(directory) {
  const require = createRequire(path.join(directory, "package.json"));
  let found, runtime;
  try {
    found = JSON.parse(readFileSync(require.resolve("acpx/package.json"), "utf8")).version;
    runtime = await import(pathToFileURL(require.resolve("acpx/runtime")));
  } catch {
    throw new Failure("wrong_acpx", `acpx ${ACPX_VERSION} is wanted, ${found ?? "none"} was found`);
  }
  const missing = [];
  const want = (name, isThere) => isThere || missing.push(name);
  want(`version ${ACPX_VERSION}`, found === ACPX_VERSION);
  want("AcpxRuntime", typeof runtime.AcpxRuntime === "function");
  const classes = missing.length ? {} : await findClasses(runtime.AcpxRuntime, want);
  if (missing.length)
    throw new Failure("wrong_acpx", `acpx ${ACPX_VERSION} is wanted, ${found} was found without ${missing.join(", ")}`);
  return { AcpxRuntime: runtime.AcpxRuntime, ...classes };
}

async function findClasses(AcpxRuntime, want) {
  const options = {
    cwd: process.cwd(),
    sessionStore: { load: async () => undefined, save: async () => {} },
    agentRegistry: { resolve: () => ["true"], list: () => ["agent"] },
    permissionMode: "deny-all",
  };
  const isMethod = (Class, name) => typeof Class?.prototype?.[name] === "function";
  want("getManager", isMethod(AcpxRuntime, "getManager"));
  const Manager = isMethod(AcpxRuntime, "getManager")
    ? (await new AcpxRuntime(options).getManager()).constructor
    : undefined;
  for (const name of ["createClient", "ensureSession", "startTurn", "shutdown"])
    want(`manager.${name}`, isMethod(Manager, name));
  if (!isMethod(Manager, "createClient")) return {};
  const Client = new Manager(options).createClient({ agentCommand: "true", ...options }).constructor;
  for (const name of ["spawnAgentProcess", "setEventHandlers", "waitForSessionUpdatesIdle"])
    want(`client.${name}`, isMethod(Client, name));
  const probe = {};
  want("clientFactory", new Manager(options, { clientFactory: () => probe }).createClient({}) === probe);
  return { Manager, Client };
}

// --- the session -------------------------------------------------------------------------------

class Session {
  constructor(acpx, order, out = aloud) {
    Object.assign(this, { acpx, order, out, wire: new Wire(out), records: new Map(), questions: new Map() });
    Object.assign(this, { screen: undefined, exit: undefined, handle: undefined, turn: undefined });
    this.understudy = undefined; // plays the agent in a rehearsal
    const host = this;
    this.Client = class extends acpx.Client {
      setEventHandlers(handlers) {
        const onAcpMessage = (direction, message) => direction === "outbound" && host.wire.sent(message);
        super.setEventHandlers({ ...handlers, onAcpMessage });
      }
      async spawnAgentProcess(...given) {
        const spawned = host.understudy ?? (await super.spawnAgentProcess(...given));
        spawned.child.stdout = host.screenOutput(spawned.child.stdout);
        return spawned;
      }
      async waitForSessionUpdatesIdle() {
        // A second of silence after each turn, so that acpx's record has all updates. Nobody reads it.
      }
    };
  }

  screenOutput(stdout) {
    const see = (message, line) => this.wire.received(message, line);
    this.screen = new Screen(this.order.max_line_bytes, see, this.out);
    // acpx destroys the stream it is given as soon as the agent has ended; the screen reads on.
    return stdout.pipe(this.screen).pipe(new PassThrough());
  }

  runtimeOptions() {
    const { argv, cwd, permissions } = this.order;
    return {
      cwd,
      agentRegistry: { resolve: () => argv, list: () => ["agent"] },
      sessionStore: {
        load: async (id) => this.records.get(id),
        save: async (record) => void this.records.set(record.acpxRecordId, record),
      },
      permissionMode: permissions === "ask" ? "approve-reads" : permissions,
      nonInteractivePermissions: "deny",
      onPermissionRequest: permissions === "ask" ? (...given) => this.ask(...given) : undefined,
      processLifecycle: {
        onSpawned: ({ pid }) => void this.out.send({ type: "spawned", pid }),
        onExit: (exit) => void this.agentExited(exit),
      },
    };
  }

  // Both ways start the agent: acpx knows no record of this key yet, because records live in this
  // process only. So an opened session is one whose agent has answered.
  async open() {
    const { AcpxRuntime, Manager } = this.acpx;
    const clientFactory = (options) => new this.Client(options);
    this.runtime = new AcpxRuntime(this.runtimeOptions(), {
      managerFactory: (options) => new Manager(options, { clientFactory }),
    });
    const { session_key: sessionKey, cwd, model, resume } = this.order;
    try {
      this.handle = await this.runtime.ensureSession({
        sessionKey,
        cwd,
        agent: "agent",
        mode: "persistent",
        ...(resume ? { resumeSessionId: resume } : {}),
        ...(model ? { sessionOptions: { model } } : {}),
      });
    } catch (error) {
      throw this.openingFailure(error, Boolean(resume));
    }
    const rehearsed = this.order.rehearse && (await rehearse(this.acpx, this.order));
    const { initialized } = this.wire;
    this.out.send({
      type: "opened",
      agent_session_id: this.records.get(this.handle.acpxRecordId).acpSessionId,
      can_resume: canResume(initialized),
      name: initialized.agentInfo?.name ?? null,
      version: initialized.agentInfo?.version ?? null,
      rehearsed: Boolean(rehearsed),
      offers: this.wire.offers,
    });
    module.flushCompileCache?.(); // a killed process writes none
  }

  openingFailure(error, isResuming) {
    const { initialized, openingError } = this.wire;
    const isRefused = isResuming && (openingError || (initialized && !canResume(initialized)));
    let reason = openingError?.message ?? error?.message ?? String(error);
    if (openingError?.code === AUTH_REQUIRED) reason = "it asks for a login";
    else if (isRefused) return new Failure("not_resumable", reason);
    else if ([error?.code, error?.cause?.code].includes("ENOENT")) reason = "its command was not found";
    else if (error?.code === "ACP_MODEL_UNSUPPORTED") return new Failure("wrong_model", "it does not offer the model");
    else if (this.exit && !openingError) reason = `${describeExit(this.exit)} before it was ready`;
    return new Failure("not_started", reason);
  }

  async prompt({ turn: id, text }) {
    this.wire.promptError = undefined;
    const turn = this.runtime.startTurn({ handle: this.handle, text, mode: "prompt", requestId: String(id) });
    this.turn = { id, cancel: () => turn.cancel() };
    turn.promptStarted.catch(() => {}); // the result says it too
    turn.closeStream(); // acpx's own events; nobody reads them, and their queue has no bound
    const result = await turn.result;
    this.turn = undefined;
    if (this.exit) return; // `exited` says it
    this.hasFailed ||= result.status === "failed";
    if (result.status !== "failed")
      this.out.send({ type: "result", turn: id, stop_reason: result.stopReason ?? result.status });
    else this.out.send({ type: "failed", turn: id, kind: "agent_error", reason: this.wire.promptError?.message ?? result.error.message });
  }

  async cancel({ turn: id }) {
    if (this.turn?.id === id) await this.turn.cancel();
  }

  async ask({ raw }, { signal }) {
    const request_id = randomUUID();
    const answered = new Promise((resolve) => {
      this.questions.set(request_id, resolve);
      signal.addEventListener("abort", () => resolve(null), { once: true });
    });
    this.out.send({ type: "permission", request_id, tool_call: raw.toolCall, options: raw.options });
    const chosen = await answered;
    this.questions.delete(request_id);
    const option = raw.options.find(({ optionId, kind }) => optionId === chosen && OPTION_KINDS.includes(kind));
    if (!option) return { outcome: "cancel" };
    // acpx takes a kind and picks the first option of it; with only the chosen one left, that is it.
    raw.options = [option];
    return { outcome: option.kind };
  }

  answer({ request_id, option_id }) {
    this.questions.get(request_id)?.(option_id);
  }

  async agentExited(exit) {
    this.exit = exit;
    if (!this.handle) return; // `open` fails and says so
    const ended = new Promise((resolve) => this.screen.once("close", resolve).resume());
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS))]);
    sendLast({ type: "exited", reason: describeExit(exit) });
  }

  async close() {
    setTimeout(() => process.exit(), SHUTDOWN_MS).unref();
    this.handle = undefined;
    await this.runtime?.shutdown().catch(() => {});
    process.exit();
  }
}

// --- the rehearsal -----------------------------------------------------------------------------

// A process compiles what it runs as it runs it, so its first prompt costs 10 ms more than the next.
// One that waits for its session plays some turns beforehand: all of acpx and of ours, to an agent
// that is two streams in this process. Nothing of it is seen outside, and if it fails the first
// prompt is as slow as ever: whether it was played is all that it says.
async function rehearse(acpx, { cwd, max_line_bytes }) {
  const order = { cwd, max_line_bytes, argv: ["understudy"], session_key: "rehearsal", permissions: "deny-all" };
  const session = new Session(acpx, order, silent);
  session.understudy = { child: makeUnderstudy(), process: { pid: NO_PID, startedAt: new Date().toISOString() } };
  const play = async () => {
    await session.open();
    for (let turn = 1; turn <= REHEARSAL_TURNS; turn += 1) await session.prompt({ turn, text: "rehearsal" });
    return !session.hasFailed;
  };
  let clock;
  const patience = new Promise((resolve) => (clock = setTimeout(resolve, REHEARSAL_MS, false)));
  const played = play().catch(() => false);
  return Promise.race([played, patience]).finally(() => clearTimeout(clock));
}

function makeUnderstudy() {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const say = (message) => stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  const sessionId = "rehearsal";
  const content = { type: "text", text: "rehearsal" };
  const update = { sessionUpdate: "agent_message_chunk", content };
  const result = { protocolVersion: 1, agentCapabilities: {}, sessionId, stopReason: "end_turn" };
  createInterface({ input: stdin }).on("line", (line) => {
    const { id, method } = JSON.parse(line);
    if (method === "session/prompt") say({ method: "session/update", params: { sessionId, update } });
    if (id !== undefined) say({ id, result });
  });
  const state = { pid: NO_PID, exitCode: null, signalCode: null, killed: false, kill: () => false };
  return Object.assign(new EventEmitter(), state, { stdin, stdout, stderr, unref() {}, ref() {} });
}

function canResume({ agentCapabilities: can }) {
  return Boolean(can?.loadSession || can?.sessionCapabilities?.resume);
}

function describeExit({ exitCode, signal }) {
  return signal ? `its process was ended by ${signal}` : `its process ended with exit code ${exitCode}`;
}

// --- input -------------------------------------------------------------------------------------

async function main(directory, ...flags) {
  delete process.env.NODE_COMPILE_CACHE; // ours, not the agent's
  console.log = console.info = console.debug = console.error; // stdout is the protocol's
  let session;
  const fail = (turn) => (error) => {
    if (!(error instanceof Failure)) throw error;
    sendLast({ type: "failed", turn, kind: error.kind, reason: error.message });
  };
  const opening = (acpx, order) => (session = new Session(acpx, order)).open();
  const loaded = loadAcpx(directory);
  loaded.catch(() => {}); // told when the order comes
  if (flags.includes("--check"))
    return loaded.then(() => sendLast({ type: "checked", acpx: ACPX_VERSION, node: process.versions.node }), fail(null));
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
  const close = () => (session ? session.close() : process.exit());
  process.stdout.on("error", close); // nobody reads any more
  lines.on("close", close);
  lines.on("line", (line) => {
    // readline also breaks at U+2028 and U+2029; the service sends ASCII only.
    const order = JSON.parse(line);
    if (order.type === "open") loaded.then((acpx) => opening(acpx, order)).catch(fail(null));
    else session[order.type](order);
  });
}

main(...process.argv.slice(2));
