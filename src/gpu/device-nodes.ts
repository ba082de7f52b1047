import { accessSync, constants, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** A file in /dev through which a driver reaches a GPU. */
export interface DeviceNode {
  readonly path: string;
  /** May this process read and write it? */
  readonly usable: boolean;
  /** Group that owns it, by name where it has one. */
  readonly group: string;
}

/** NVIDIA's nodes, the render and card nodes of all others, and the one of Windows' subsystem for Linux. */
const NODES = /^(?:nvidia\S*|dxg|kfd)$/;

/** The GPU nodes of this machine. Never throws. */
export function findDeviceNodes(dev = "/dev"): DeviceNode[] {
  const groups = groupNames();
  const paths = [
    ...list(dev).filter((name) => NODES.test(name)),
    ...list(join(dev, "dri")).map((name) => join("dri", name)),
  ];
  return paths.sort().flatMap((name): DeviceNode[] => {
    const path = join(dev, name);
    try {
      const { gid } = statSync(path);
      if (statSync(path).isDirectory()) return [];
      return [{ path, usable: mayUse(path), group: groups.get(gid) ?? String(gid) }];
    } catch {
      // A dangling link, or gone since it was listed.
      return [];
    }
  });
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // No such folder: no such devices.
    return [];
  }
}

function mayUse(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    // The answer itself.
    return false;
  }
}

function groupNames(): Map<number, string> {
  try {
    const lines = readFileSync("/etc/group", "utf8").split("\n");
    return new Map(lines.map((line) => line.split(":")).map(([name, , gid]) => [Number(gid), name ?? ""]));
  } catch {
    // Numbers will do.
    return new Map();
  }
}
