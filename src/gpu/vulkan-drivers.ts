import { existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";

/** Where Vulkan drivers announce themselves: folders of json files, in the Linux loader's order of search. */
function driverFolders(): string[] {
  const { XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_CONFIG_DIRS, XDG_DATA_DIRS } = process.env;
  const lists = [
    XDG_CONFIG_HOME ?? join(homedir(), ".config"),
    XDG_CONFIG_DIRS ?? "/etc/xdg",
    "/usr/local/etc:/etc",
    XDG_DATA_HOME ?? join(homedir(), ".local/share"),
    XDG_DATA_DIRS ?? "/usr/local/share:/usr/share",
  ];
  return lists
    .flatMap((list) => list.split(":").filter(Boolean))
    .map((folder) => join(folder, "vulkan", "icd.d"));
}

/**
 * The driver files (ICDs) that a Vulkan loader would find here, VK_DRIVER_FILES and its relatives included. Without one
 * there is no hardware adapter, and asking for one only makes the loader complain on stderr.
 */
export function findVulkanDrivers(): string[] {
  const files = process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES;
  const more = process.env.VK_ADD_DRIVER_FILES?.split(":").filter(Boolean) ?? [];
  if (files) return [...files.split(":").filter(Boolean), ...more].filter((f) => existsSync(f));
  const found = driverFolders()
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .filter((file) => file.endsWith(".json"));
  return [...new Set([...found, ...more.filter((f) => existsSync(f))])];
}
