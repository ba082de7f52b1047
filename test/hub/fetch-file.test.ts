import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { PullProgress } from "../../src/hub.ts";
import { cutAfter, refuse, type Seen } from "./fake-hub.ts";
import { digests, digestsIn, failure, halfDone, WEIGHTS } from "./pull-fixture.ts";

describe("a second pull", () => {
  it("verifies what is there and fetches no content", async () => {
    const { hub, pull } = await halfDone({});
    await pull();
    const before = hub.contents().length;
    const events: PullProgress[] = [];
    const again = await pull({ onProgress: (event) => events.push(event) });
    expect(hub.contents()).toHaveLength(before);
    expect(again.received).toBe(0);
    expect(events.map(({ state }) => state)).toEqual(["present", "present"]);
    expect(events.at(-1)?.done).toBe(events.at(-1)?.total);
  });

  it("replaces a file of the right size and the wrong content", async () => {
    const { files, folder, weights, pull } = await halfDone({});
    const spoilt = weights.slice();
    spoilt[spoilt.length - 1]! ^= 1;
    await writeFile(join(folder, WEIGHTS), spoilt);
    await writeFile(join(folder, "config.json"), Buffer.alloc(files["config.json"]!.length, " "));
    await pull();
    expect(await digestsIn(folder)).toEqual(digests(files));
  });
});

describe("a part", () => {
  it.each([1, 1000, 4095])("of %i bytes is continued where it ends", async (bytes) => {
    const { files, folder, weights, pull, ranges } = await halfDone({}, bytes);
    const result = await pull();
    expect(ranges()).toEqual([`bytes=${bytes}-`]);
    expect(await digestsIn(folder)).toEqual(digests(files));
    expect(result.received).toBe(weights.length - bytes + files["config.json"]!.length);
  });

  it("that is whole is verified and renamed without a request", async () => {
    const { files, folder, pull, ranges } = await halfDone({}, 1e9);
    await pull();
    expect(ranges()).toEqual([]);
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it("longer than the file is started over", async () => {
    const { files, folder, part, weights, pull, ranges } = await halfDone({});
    await writeFile(part, Buffer.alloc(weights.length + 1));
    await pull();
    expect(ranges()).toEqual([undefined]);
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it("with wrong bytes is deleted with a clear error, and the next pull succeeds", async () => {
    const { files, folder, part, pull } = await halfDone({});
    await writeFile(part, Buffer.alloc(100));
    expect(await failure(pull())).toMatch(/someone\/tiny\/model.safetensors: its sha256 is not.*pull again/);
    expect(await readdir(folder)).toEqual(["config.json"]);
    await pull();
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it("is started over, with figures that do not fall, when the server ignores Range", async () => {
    const intercept = (
      seen: Seen,
      response: Parameters<typeof refuse>[0],
      content: Uint8Array | undefined,
    ) => {
      if (seen.from === "cdn") response.writeHead(200).end(content);
      return seen.from === "cdn";
    };
    const { files, folder, pull } = await halfDone({ intercept }, 5000);
    const done: number[] = [];
    await pull({ onProgress: (event) => done.push(event.done) });
    expect(done).toEqual([...done].sort((a, b) => a - b));
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it("is started over when the server answers 416", async () => {
    const intercept = (seen: Seen, response: Parameters<typeof refuse>[0]) => {
      if (seen.range !== undefined) refuse(response, 416);
      return seen.range !== undefined;
    };
    const { files, folder, pull, ranges } = await halfDone({ intercept }, 5000);
    await pull();
    expect(ranges()).toEqual(["bytes=5000-", undefined]);
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it.each(["bytes 0-9/10", "bytes 4999-9/*", "nonsense"])(
    "is not mixed with a range of %s",
    async (contentRange) => {
      const intercept = (seen: Seen, response: Parameters<typeof refuse>[0]) => {
        if (seen.range !== undefined)
          response.writeHead(206, { "content-range": contentRange }).end("0123456789");
        return seen.range !== undefined;
      };
      const { part, pull } = await halfDone({ intercept }, 5000);
      expect(await failure(pull())).toMatch(/the list says/);
      expect(await readFile(part)).toHaveLength(5000);
    },
  );
});

describe("a connection", () => {
  it.each(["cut", "short"])("that ends early (%s) is continued within the same pull", async (kind) => {
    const intercept = (
      seen: Seen,
      response: Parameters<typeof refuse>[0],
      content: Uint8Array | undefined,
    ) => {
      if (seen.from !== "cdn" || seen.range !== undefined) return false;
      if (kind === "cut") cutAfter(response, content!, 7000);
      else response.writeHead(200).end(content!.subarray(0, 7000));
      return true;
    };
    const { files, folder, pull, ranges } = await halfDone({ intercept });
    await pull();
    expect(ranges()).toEqual([undefined, "bytes=7000-"]);
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it("that always ends early fails with one line and leaves the part for the next pull", async () => {
    let broken = true;
    const intercept = (
      seen: Seen,
      response: Parameters<typeof refuse>[0],
      content: Uint8Array | undefined,
    ) => {
      if (seen.from !== "cdn" || !broken) return false;
      if (seen.range === undefined) cutAfter(response, content!, 7000);
      else response.destroy();
      return true;
    };
    const { files, folder, part, pull, ranges } = await halfDone({ intercept });
    expect(await failure(pull())).toMatch(
      /someone\/tiny\/model.safetensors: .*run the command again to continue/,
    );
    expect(await readFile(part)).toHaveLength(7000);
    broken = false;
    await pull();
    expect(ranges().at(-1)).toBe("bytes=7000-");
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it("on which nothing comes is given up and tried again", async () => {
    const intercept = (
      seen: Seen,
      response: Parameters<typeof refuse>[0],
      content: Uint8Array | undefined,
    ) => {
      if (seen.from !== "cdn" || seen.range !== undefined) return false;
      response.writeHead(200, { "content-length": content!.length }).write(content!.subarray(0, 100));
      return true;
    };
    const { files, folder, pull } = await halfDone({ intercept });
    await pull({ stallMs: 300 });
    expect(await digestsIn(folder)).toEqual(digests(files));
  });

  it("that is aborted rejects with the reason and leaves the part", async () => {
    const { files, folder, part, pull, ranges } = await halfDone({
      intercept: (seen, response, content) => {
        if (seen.from !== "cdn" || seen.range !== undefined) return false;
        response.writeHead(200, { "content-length": content!.length }).write(content!.subarray(0, 7000));
        return true;
      },
    });
    const controller = new AbortController();
    const reason = new Error("SIGINT");
    const onProgress = ({ fileDone }: PullProgress) => fileDone === 7000 && controller.abort(reason);
    await expect(pull({ signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(await readFile(part)).toHaveLength(7000);
    await pull();
    expect(ranges().at(-1)).toBe("bytes=7000-");
    expect(await digestsIn(folder)).toEqual(digests(files));
  });
});

describe("a hub whose content is not what it lists", () => {
  it.each(["git-sha1", "sha256"])("fails the %s and leaves neither file nor part", async (algorithm) => {
    const intercept = (
      seen: Seen,
      response: Parameters<typeof refuse>[0],
      content: Uint8Array | undefined,
    ) => {
      const spoil =
        content !== undefined && (algorithm === "sha256" ? seen.from === "cdn" : seen.from === "hub");
      if (spoil) response.writeHead(200).end(content.map((byte) => byte ^ 1));
      return spoil;
    };
    const { folder, pull } = await halfDone({ intercept });
    expect(await failure(pull())).toContain(`its ${algorithm} is not the one that`);
    expect(await readdir(folder)).toEqual(algorithm === "sha256" ? ["config.json"] : []);
  });

  it.each([true, false])("fails on a page instead of the file (its length given: %s)", async (given) => {
    const page = "<html>".repeat(given ? 10 : 100_000);
    const intercept = (seen: Seen, response: Parameters<typeof refuse>[0]) => {
      if (seen.from !== "cdn") return false;
      response.writeHead(200, {
        "content-type": "text/html",
        ...(given ? { "content-length": page.length } : {}),
      });
      response.end(page);
      return true;
    };
    const { pull } = await halfDone({ intercept });
    expect(await failure(pull())).toMatch(/\(text\/html\), the list says \d+/);
  });

  it("checks sizes alone where the list has no digests", async () => {
    const editList = (entries: Record<string, unknown>[]) =>
      entries.map(({ type, path, size }) => ({ type, path, size }));
    const { files, folder, pull } = await halfDone({ editList });
    await pull();
    expect(await digestsIn(folder)).toEqual(digests(files));
  });
});

describe("redirects", () => {
  it.each([
    ["/x", /redirected more than/],
    ["", /without a usable address/],
    ["file:///etc/passwd", /without a usable address/],
  ])("to %j for ever, or to nowhere, are refused", async (location, expected) => {
    const intercept = (_seen: Seen, response: Parameters<typeof refuse>[0]) => {
      response.writeHead(302, location ? { location } : {}).end();
      return true;
    };
    const { pull } = await halfDone({ intercept });
    expect(await failure(pull())).toMatch(expected);
  });
});
