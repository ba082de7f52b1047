import { describe, expect, it } from "vitest";
import { OP } from "../../src/formats/pickle-opcodes.ts";
import { GLOBALS } from "../../src/formats/pickle-torch.ts";
import { bytes, dict, global, pickle, str, tuple } from "./pickle-assembler.ts";
import { refusal, refusalOf } from "./pickle-reading.ts";
import { messageOf, openBin, torchZip } from "./torch-files.ts";

const { STOP, REDUCE } = OP;

/** Rows 1 to 12 and 13 to 30, and names that almost are on the list. */
const REFUSED_GLOBALS: readonly (readonly [module: string, name: string])[] = [
  ["posix", "system"],
  ["nt", "system"],
  ["os", "system"],
  ["builtins", "eval"],
  ["builtins", "exec"],
  ["builtins", "__import__"],
  ["builtins", "getattr"],
  ["subprocess", "Popen"],
  ["runpy", "_run_code"],
  ["pty", "spawn"],
  ["sys", "modules"],
  ["pickle", "loads"],
  ["__builtin__", "eval"],
  ["torch.jit.unsupported_tensor_ops", "execWrapper"],
  ["torch._inductor.codecache", "compile_file"],
  ["torch.utils.bottleneck.__main__", "run_cprofile"],
  ["torch.utils.bottleneck.__main__", "run_autograd_prof"],
  ["torch.utils._config_module", "load_config"],
  ["torch.utils._config_module", "ConfigModule.load_config"],
  ["torch.serialization", "load"],
  ["torch", "load"],
  ["torch.storage", "_load_from_bytes"],
  ["numpy.f2py.crackfortran", "getlincoef"],
  ["numpy.f2py.crackfortran", "_eval_length"],
  ["numpy.f2py.diagnose", "run_command"],
  ["numpy.testing._private.utils", "runstring"],
  ["operator", "attrgetter"],
  ["operator", "methodcaller"],
  ["functools", "partial"],
  ["idlelib.pyshell", "ModifiedInterpreter.runcommand"],
  ["idlelib.autocomplete", "AutoComplete.get_entity"],
  ["idlelib.run", "Executive.runcode"],
  ["lib2to3.pgen2.grammar", "Grammar.loads"],
  ["lib2to3.pgen2.pgen", "ParserGenerator.make_label"],
  ["distutils.file_util", "write_file"],
  ["_io", "FileIO"],
  ["logging", "FileHandler"],
  ["urllib.request", "urlopen"],
  ["uuid", "_get_command_stdout"],
  ["uuid", "_popen"],
  ["imaplib", "IMAP4_stream"],
  ["_pyrepl.pager", "pipe_pager"],
  ["cloudpickle.cloudpickle", "_make_function"],
  ["types", "CodeType"],
  ["pydoc", "locate"],
  ["cProfile", "run"],
  ["collections", "OrderedDict.__init__"],
  ["collections ", "OrderedDict"],
  ["Collections", "OrderedDict"],
  ["torch", "FloatStorage.__reduce__"],
  ["torch", "QInt8Storage"],
  ["torch.storage", "UntypedStorage"],
  ["torch._utils", "_rebuild_qtensor"],
  ["torch._utils", "_rebuild_wrapper_subclass"],
  ["", ""],
  ["__proto__", "constructor"],
];

describe("bad-inputs section 2: names", () => {
  it.each(REFUSED_GLOBALS)("1-30: %s %s", async (module, name) => {
    const call = bytes(global(module, name), tuple(str("id")), REDUCE);
    const message = `PICKLE_GLOBAL: f.bin: \`${module} ${name}\` at byte 2 is not allowed; this file may be malicious`;
    expect(await refusalOf(call)).toContain(message);
    // Inside a file, where a tensor's data would be, it is found as well.
    expect(await messageOf(() => openBin(torchZip(pickle(dict({ w: call })))))).toMatch(
      /^PICKLE_GLOBAL: f\.bin: /,
    );
  });
  it("31: STACK_GLOBAL with names from the memo", async () => {
    const names = bytes(str("posix"), "q\0", "0", str("system"), "q\x01");
    expect(await refusalOf(str("posix"), "q\0", str("system"), "q\x01", "h\0", "h\x01", 0x93)).toMatch(
      /^PICKLE_OPCODE: f\.bin: 0x93 STACK_GLOBAL not allowed at byte 31/,
    );
    expect(await refusal(0x80, 4, names, 0x93, STOP)).toMatch(
      /^PICKLE_OPCODE: f\.bin: 0x30 POP not allowed at byte 14/,
    );
  });
  it("32: a dotted name that walks through a module on the list", async () => {
    expect(await refusalOf(global("collections", "abc.sys.modules"))).toContain(
      "PICKLE_GLOBAL: f.bin: `collections abc.sys.modules` at byte 2 is not allowed",
    );
  });
  it("are tags that are all alike, never functions, and exactly these", () => {
    const names = [...GLOBALS.keys()].sort();
    expect(names).toEqual([
      "collections OrderedDict",
      "torch BFloat16Storage",
      "torch BoolStorage",
      "torch ByteStorage",
      "torch CharStorage",
      "torch DoubleStorage",
      "torch FloatStorage",
      "torch HalfStorage",
      "torch IntStorage",
      "torch LongStorage",
      "torch ShortStorage",
      "torch._utils _rebuild_parameter",
      "torch._utils _rebuild_tensor",
      "torch._utils _rebuild_tensor_v2",
    ]);
    for (const tag of GLOBALS.values())
      expect(Object.values(tag).every((v) => typeof v === "string")).toBe(true);
  });
  it("show no control characters of the file on the terminal", async () => {
    expect(await refusalOf(global("\x1b[2Jposix", "system"))).toContain("`\\u{1b}[2Jposix system`");
  });
});
