import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type PullProgress, pullModel } from "../src/hub.ts";
import { COMMIT, refuse, sha256Of } from "./hub/fake-hub.ts";
import { digests, digestsIn, failure, goldenFiles, setUp, tinyRepo } from "./hub/pull-fixture.ts";

const SMALL = ["config.json", "generation_config.json", "vocab.json", "merges.txt"];
const TOKEN = "hf_abcDEF0123456789";

describe("a first pull", () => {
  it("brings configuration, tokenizer and safetensors, bit for bit, into <into>/<owner>/<name>", async () => {
    const files = await tinyRepo();
    const { hub, into } = await setUp({ files });
    const result = await pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into });
    const names = [...SMALL, "model.safetensors"];
    expect(result.folder).toBe(join(into, "someone", "tiny"));
    expect(result.commit).toBe(COMMIT);
    expect(result.files.map(({ name }) => name)).toEqual(names);
    expect(result.files.at(-1)?.sha256).toBe(sha256Of(files["model.safetensors"]!));
    const expected = names.map((name) => [name, files[name]!] as const);
    expect(await digestsIn(result.folder)).toEqual(digests(Object.fromEntries(expected)));
    expect(result.received).toBe(names.reduce((sum, name) => sum + files[name]!.length, 0));
  });

  it("asks for every file of the one commit that the revision stood for", async () => {
    const files = await tinyRepo();
    const old = { commit: "b".repeat(40), files: { ...files, "vocab.json": new Uint8Array([123, 125]) } };
    const { hub, into } = await setUp({ files, revisions: { "refs/pr/1": old } });
    const result = await pullModel({
      repo: "someone/tiny",
      revision: "refs/pr/1",
      endpoint: hub.endpoint,
      into,
    });
    expect(result.commit).toBe(old.commit);
    expect((await digestsIn(result.folder))["vocab.json"]).toBe(sha256Of(old.files["vocab.json"]!));
    for (const { path } of hub.seen.filter(({ from }) => from === "hub").slice(1))
      expect(path).toContain(old.commit);
  });

  it.each([
    ["safetensors", "tiny/sharded", "model.safetensors.index.json"],
    ["pytorch", "tiny/sharded-bin", "pytorch_model.bin.index.json"],
  ])("brings the index and the shards of %s", async (_format, folder, index) => {
    const files = await goldenFiles(folder);
    const { hub, into } = await setUp({ files });
    const result = await pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into });
    expect(result.files.map(({ name }) => name)).toContain(index);
    expect(await digestsIn(result.folder)).toEqual(digests(files));
  });

  it("takes pytorch_model.bin where there are no safetensors", async () => {
    const files = await goldenFiles("tiny", ["config.json", "pytorch_model.bin"]);
    const { hub, into } = await setUp({ files });
    const result = await pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into });
    expect(await digestsIn(result.folder)).toEqual(digests(files));
  });

  it("takes only the files named, where some are", async () => {
    const { hub, into } = await setUp({ files: await tinyRepo() });
    const pull = { repo: "someone/tiny", endpoint: hub.endpoint, into };
    const result = await pullModel({ ...pull, only: ["vocab.json", "README.md"] });
    expect(Object.keys(await digestsIn(result.folder)).sort()).toEqual(["README.md", "vocab.json"]);
    expect(await failure(pullModel({ ...pull, only: ["vocab.txt"] }))).toMatch(/no file `vocab.txt`/);
  });

  it("gives gpt2 its owner", async () => {
    const { hub, into } = await setUp({ repo: "openai-community/gpt2", files: await tinyRepo() });
    const result = await pullModel({ repo: "gpt2", endpoint: hub.endpoint, into });
    expect(result.folder).toBe(join(into, "openai-community", "gpt2"));
  });
});

describe("progress", () => {
  it("only grows, per file and over all, and ends at the total", async () => {
    const files = await tinyRepo();
    const { hub, into } = await setUp({ files });
    const events: PullProgress[] = [];
    const result = await pullModel({
      repo: "someone/tiny",
      endpoint: hub.endpoint,
      into,
      onProgress: (e) => events.push(e),
    });
    const total = result.files.reduce((sum, { bytes }) => sum + bytes, 0);
    events.forEach((event, i) => {
      const before = events[i - 1];
      expect(event.total).toBe(total);
      expect(event.done).toBeGreaterThanOrEqual(before?.done ?? 0);
      if (event.file === before?.file) expect(event.fileDone).toBeGreaterThanOrEqual(before.fileDone);
    });
    const finished = events.filter(({ state }) => state === "done");
    expect(finished.map(({ file }) => file)).toEqual(result.files.map(({ name }) => name));
    expect(events.at(-1)?.done).toBe(total);
  });
});

describe("the endpoint and the token", () => {
  it.each(["/hf", "/a/b"])(
    "a mirror under the path %s serves everything, pages of the list included",
    async (prefix) => {
      const files = await tinyRepo();
      // A name that does not resolve: following the mirror's links as they are would fail.
      const { hub, into } = await setUp({ files, prefix, linkOrigin: "https://hub.invalid" });
      const result = await pullModel({ repo: "someone/tiny", endpoint: `${hub.endpoint}//`, into });
      expect(result.files).toHaveLength(SMALL.length + 1);
      expect(hub.seen.filter(({ from, path }) => from === "hub" && !path.startsWith(`${prefix}/`))).toEqual(
        [],
      );
    },
  );

  it("sends the token with every request to the endpoint and to no other host", async () => {
    const { hub, into } = await setUp({ files: await tinyRepo() });
    await pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, token: TOKEN, into });
    expect(hub.seen.some(({ from }) => from === "cdn")).toBe(true);
    for (const { from, authorization } of hub.seen) {
      expect(authorization).toBe(from === "hub" ? `Bearer ${TOKEN}` : undefined);
    }
  });

  it.each(["secret", "hf_secret secret", "hf_secret\nsecret", "hf_secr\u00e9t secret"])(
    "refuses the token %j without showing it",
    async (token) => {
      const message = await failure(
        pullModel({ repo: "someone/tiny", endpoint: "http://127.0.0.1:9", token }),
      );
      expect(message).toContain("HF_TOKEN");
      expect(message).not.toContain("secr");
    },
  );

  it.each([
    "hf-mirror.com",
    "ftp://x.example",
    "https://me:pass@x.example",
    "https://x.example/?a=b",
    "http://",
  ])("refuses the endpoint %s", async (endpoint) => {
    const message = await failure(pullModel({ repo: "someone/tiny", endpoint }));
    expect(message).toContain("HF_ENDPOINT");
    expect(message).not.toContain("pass@");
  });
});

describe("what the hub refuses", () => {
  const cases: [number, string | undefined, string | undefined, RegExp][] = [
    [401, undefined, undefined, /refuses someone\/tiny without a token \(401\).*set HF_TOKEN/],
    [401, undefined, TOKEN, /refuses someone\/tiny with this HF_TOKEN \(401\)/],
    [403, "GatedRepo", undefined, /gated \(403\): accept its licence at .*\/someone\/tiny and set HF_TOKEN/],
    [403, "GatedRepo", TOKEN, /gated \(403\): accept its licence at .* with the account of this HF_TOKEN/],
    [404, "RepoNotFound", undefined, /has no model someone\/tiny \(404\): check the name/],
    [404, "RevisionNotFound", undefined, /has no revision `main`/],
    [404, undefined, undefined, /has no model someone\/tiny with revision `main` \(404\)/],
    [429, undefined, undefined, /answered 429.*HF_ENDPOINT/],
    [503, undefined, undefined, /answered 503.*HF_ENDPOINT/],
    [418, undefined, undefined, /answered 418/],
  ];
  it.each(cases)("status %i, code %s, token %s", async (status, code, token, expected) => {
    const intercept = (_: unknown, response: Parameters<typeof refuse>[0]) => {
      refuse(response, status, code);
      return true;
    };
    const { hub, into } = await setUp({ files: {}, intercept });
    const message = await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, token, into }));
    expect(message).toMatch(expected);
    expect(message).not.toContain(TOKEN);
  });

  it("says which file a gate is on", async () => {
    const { hub, into } = await setUp({
      files: await tinyRepo(),
      intercept: (seen, response) => {
        if (seen.path.includes("/resolve/")) refuse(response, 403, "GatedRepo");
        return seen.path.includes("/resolve/");
      },
    });
    expect(await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }))).toMatch(
      /someone\/tiny is gated/,
    );
  });

  it("a hub that cannot be reached is one line with the mirror as a way out", async () => {
    const { hub, into } = await setUp({ files: {} });
    await hub.close();
    const message = await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }));
    expect(message).toMatch(
      /cannot ask for someone\/tiny: cannot reach http:\/\/127.0.0.1:\d+: .*HF_ENDPOINT/,
    );
  });

  it.each(["<html>log in</html>", '{"sha":17}', "[]", '{"sha":"../../x"}', "{"])(
    "an info of %s is no hub",
    async (body) => {
      const { hub, into } = await setUp({
        files: {},
        intercept: (_seen, response) => {
          response.writeHead(200, { "content-type": "text/html" }).end(body);
          return true;
        },
      });
      expect(await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }))).toMatch(
        /endpoint/,
      );
    },
  );
});

describe("a hub that does not end", () => {
  const list = '[{"type":"file","path":"config.json","size":2}]';

  it("names a page as the one after itself", async () => {
    const { hub, into } = await setUp({
      files: await tinyRepo(),
      intercept: ({ path }, response) => {
        if (!path.includes("/tree/")) return false;
        const link = `<http://${response.req.headers.host}${path}>; rel="next"`;
        response.writeHead(200, { "content-type": "application/json", link }).end(list);
        return true;
      },
    });
    const message = await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }));
    expect(message).toContain("answered with a page that names itself as next when asked for someone/tiny");
    expect(hub.seen.filter(({ path }) => path.includes("/tree/"))).toHaveLength(1);
  });

  it("always has one page more", async () => {
    const { hub, into } = await setUp({
      files: await tinyRepo(),
      intercept: ({ path }, response) => {
        if (!path.includes("/tree/")) return false;
        const link = `<http://${response.req.headers.host}${path.replace(/\?.*/, "")}?n=${hub.seen.length}>; rel="next"`;
        response.writeHead(200, { "content-type": "application/json", link }).end(list);
        return true;
      },
    });
    const message = await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }));
    expect(message).toContain("answered with more than 1000 pages when asked for someone/tiny");
  });

  it("sends a list without an end", async () => {
    const block = Buffer.alloc(1 << 20, " ");
    const { hub, into } = await setUp({
      files: await tinyRepo(),
      intercept: ({ path }, response) => {
        if (!path.includes("/tree/")) return false;
        response.writeHead(200, { "content-type": "application/json" });
        const fill = () => {
          while (!response.destroyed && response.write(block));
        };
        response.on("drain", fill);
        fill();
        return true;
      },
    });
    const message = await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }));
    expect(message).toContain("answered more than 67108864 bytes when asked for someone/tiny");
  });

  it("lists a config.json of a gigabyte", async () => {
    const { hub, into } = await setUp({
      files: await tinyRepo(),
      editList: (entries) =>
        entries.map((entry) => (entry.path === "config.json" ? { ...entry, size: 2 ** 30 } : entry)),
    });
    const message = await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }));
    expect(message).toContain("config.json has 1073741824 bytes; expected at most 1048576");
    expect(hub.contents()).toEqual([]);
  });
});

describe("names", () => {
  it.each([
    "",
    "tiny",
    "a/b/c",
    "../b",
    "a/..",
    "a/.",
    "/b",
    "a/",
    "a b/c",
    "-a/b",
    "a/b..c",
    "https://huggingface.co/a/b",
  ])("%j is not a model", async (repo) =>
    expect(await failure(pullModel({ repo, endpoint: "http://127.0.0.1:9" }))).toMatch(/<owner>\/<name>/),
  );

  it.each(["", "../x", "a b", "-x", "x/", "a\nb"])("%j is not a revision", async (revision) => {
    expect(await failure(pullModel({ repo: "a/b", revision, endpoint: "http://127.0.0.1:9" }))).toMatch(
      /is not a revision/,
    );
  });

  it.each(["../x", "a/../../x", "/etc/x", "C:\\x", "a\\..\\x", ".", "a//b", "x\n"])(
    "a list that names %j is refused",
    async (path) => {
      const { hub, into } = await setUp({
        files: await tinyRepo(),
        editList: (entries) => [...entries, { type: "file", path, size: 1, oid: "a".repeat(40) }],
      });
      expect(await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }))).toMatch(
        /could leave its folder/,
      );
      expect(hub.contents()).toEqual([]);
    },
  );

  it.each([
    ['{"weight_map":{"w":"../x"}}', /INDEX_NAME: .*`..\/x`/],
    [
      '{"weight_map":{"w":"absent.safetensors"}}',
      /no file `absent.safetensors`.*named by model.safetensors.index.json/,
    ],
    ['{"weight_map":{}}', /INDEX_FIELD/],
    ["{", /INDEX_JSON/],
  ])("an index of %s is refused", async (index, expected) => {
    const files = {
      ...(await goldenFiles("tiny", ["config.json"])),
      "model.safetensors.index.json": Buffer.from(index),
    };
    const { hub, into } = await setUp({ files });
    expect(await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }))).toMatch(
      expected,
    );
  });
});

describe("a repository that is no GPT-2", () => {
  it.each([
    [{}, /no config.json/],
    [{ "config.json": "{}" }, /has none of model.safetensors.*its files are: `config.json`/],
    [
      { "config.json": '{"model_type":"bert"}', "model.safetensors": "" },
      /of type `bert`; Quire runs gpt2 only/,
    ],
    [{ "config.json": "<html>", "model.safetensors": "" }, /config.json is not JSON/],
  ])("%j", async (texts, expected) => {
    const files = Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, Buffer.from(text)]));
    const { hub, into } = await setUp({ files });
    expect(await failure(pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into }))).toMatch(
      expected,
    );
    expect(hub.contents().filter(({ path }) => path.endsWith("model.safetensors"))).toEqual([]);
  });
});
