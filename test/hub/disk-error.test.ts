import { chmod, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { pullModel } from "../../src/hub.ts";
import { failure, halfDone, setUp, tinyRepo, WEIGHTS } from "./pull-fixture.ts";

describe("the disk", () => {
  it("that takes nothing is one line", async () => {
    const { hub, into } = await setUp({ files: await tinyRepo() });
    await writeFile(join(into, "someone"), "a file");
    const pull = () => pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into });
    expect(await failure(pull())).toMatch(
      /cannot write .*someone.tiny: a file stands where a folder should be/,
    );
    await rm(join(into, "someone"));
    await mkdir(join(into, "someone", "tiny", `${WEIGHTS}.part`), { recursive: true });
    expect(await failure(pull())).toMatch(
      /cannot write .*model.safetensors: a folder stands where the file should be/,
    );
  });

  it.skipIf(process.platform !== "linux")("that is full is one line (/dev/full is Linux's)", async () => {
    const { part, pull } = await halfDone({});
    await symlink("/dev/full", part);
    expect(await failure(pull())).toMatch(/cannot write .*model.safetensors: no space left on the disk/);
  });

  it.skipIf(process.getuid?.() === 0)(
    "without permission is one line (root may write everywhere)",
    async () => {
      const { hub, into } = await setUp({ files: await tinyRepo() });
      await chmod(into, 0o500);
      const pull = pullModel({ repo: "someone/tiny", endpoint: hub.endpoint, into });
      expect(await failure(pull)).toMatch(/cannot write .*: no permission/);
    },
  );
});
