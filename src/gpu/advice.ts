import type { Diagnosis } from "./diagnosis.ts";

// What to do about what `quire doctor` found. Pure: a diagnosis in, sentences out, so that every situation can be tested
// on a machine that is not in it.

const SOFTWARE = /swiftshader|llvmpipe|lavapipe/i;

/** What to do, most important first; empty when nothing is amiss. */
export function advise(d: Diagnosis): string[] {
  if (d.dawnProblem !== null) return dawnAdvice(d);
  if (d.chosen && !d.chosen.software) return gpuAdvice(d);
  return [...(wantsGpu(d) ? missingGpuAdvice(d) : []), ...softwareAdvice(d)];
}

/** Was a GPU welcome? With --adapter software its absence is no finding. */
function wantsGpu({ choice }: Diagnosis): boolean {
  return !"software swiftshader llvmpipe lavapipe".split(" ").includes(choice.toLowerCase());
}

function dawnAdvice({ dawnProblem, packages, runtime }: Diagnosis): string[] {
  if (packages.webgpu === null)
    return ["The npm package webgpu is not installed: run npm ci in Quire's folder."];
  if (/alpine/i.test(runtime.system) || /ld-linux|musl/.test(dawnProblem!))
    return ["Dawn's binary needs glibc, which this system (musl) lacks: use an image of Debian or Ubuntu."];
  if (/GLIBC/.test(dawnProblem!))
    return [
      `Dawn's binary needs a newer C library than ${runtime.system} has: use Debian 12, Ubuntu 22.04 or later, or Deno.`,
    ];
  const platform = `${runtime.platform} on ${runtime.arch}`;
  return [
    `Dawn cannot be loaded on ${platform}: run npm ci again (its binaries are for Linux, macOS and Windows), or use Deno.`,
  ];
}

/** A GPU runs: what could still be better. */
function gpuAdvice({ chosen, runtime }: Diagnosis): string[] {
  const advice: string[] = [];
  if (runtime.name === "deno")
    advice.push("Deno has no subgroups and reads results back in steps of 12 ms: use Node for benchmarks.");
  if (!chosen!.features.includes("timestamp-query"))
    advice.push(
      "This adapter has no timestamp-query, so bench shaders cannot time kernels: update the driver.",
    );
  return advice;
}

function missingGpuAdvice(d: Diagnosis): string[] {
  if (d.runtime.platform !== "linux")
    return ["No GPU adapter: update the graphics driver of this computer, then run quire doctor again."];
  const seen = d.adapters.filter((name) => !SOFTWARE.test(name));
  if (seen.length > 0)
    return [
      d.choice === "auto" || d.choice === "gpu"
        ? `Dawn lists ${seen.join(", ")} but cannot use it: update its driver.`
        : `Dawn lists ${seen.join(", ")}: choose it with --adapter gpu or by a part of its name.`,
    ];
  const specific = [
    ...environmentAdvice(d),
    ...loaderAdvice(d),
    ...nvidiaAdvice(d),
    ...otherGpuAdvice(d),
    ...brokenDriverAdvice(d),
  ];
  const noGpu = d.devices.length === 0 && d.nvidia.kernelVersion === null;
  return specific.length > 0 && !noGpu ? specific : [...specific, noDeviceAdvice(d)];
}

function environmentAdvice({ missingDriverFiles, environment, devices }: Diagnosis): string[] {
  const advice: string[] = [];
  const name = environment.VK_DRIVER_FILES ? "VK_DRIVER_FILES" : "VK_ICD_FILENAMES";
  const files = environment[name];
  if (missingDriverFiles.length > 0)
    advice.push(
      `The environment names a driver file that does not exist (${missingDriverFiles.join(", ")}): unset VK_DRIVER_FILES and VK_ICD_FILENAMES, or correct them.`,
    );
  else if (files && SOFTWARE.test(files) && devices.length > 0)
    advice.push(`${name} restricts Vulkan to ${files}: unset it, so that the GPU's driver is found.`);
  if (environment.VK_LOADER_DRIVERS_DISABLE)
    advice.push(
      `VK_LOADER_DRIVERS_DISABLE is ${environment.VK_LOADER_DRIVERS_DISABLE}: unset it, unless it is meant to hide the GPU.`,
    );
  return advice;
}

function loaderAdvice({ loader, runtime }: Diagnosis): string[] {
  if (loader.kind !== "none") return [];
  const install =
    "install it (Debian and Ubuntu: apt-get install libvulkan1; Fedora: dnf install vulkan-loader)";
  const deno =
    runtime.name === "deno"
      ? ", or start Deno with LD_LIBRARY_PATH at the folder of the loader that Quire unpacks (quire doctor on Node names it)"
      : "";
  return [`There is no Vulkan loader (libvulkan.so.1): ${install}${deno}.`];
}

function nvidiaAdvice(d: Diagnosis): string[] {
  const gpus = d.devices.filter(({ path }) => /nvidia\d+$/.test(path));
  const drivers = d.drivers.filter(({ file, library }) => /nvidia/i.test(`${file} ${library}`));
  if (gpus.length === 0) {
    if (d.nvidia.kernelVersion === null) return [];
    const how = inContainer(d)
      ? "start the container with --gpus all and NVIDIA_DRIVER_CAPABILITIES=all"
      : "run nvidia-smi or nvidia-modprobe as root, which make the device files";
    return [`The NVIDIA driver ${d.nvidia.kernelVersion} is loaded but no /dev/nvidia0 is here: ${how}.`];
  }
  const locked = gpus.filter(({ usable }) => !usable);
  if (locked.length > 0) return [permissionAdvice(d, locked)];
  if (drivers.some(({ problem }) => problem === null)) {
    if (d.loader.kind === "none") return [];
    const same = "the libraries must be of the same version as the kernel's driver";
    const version = d.nvidia.kernelVersion ? ` (${d.nvidia.kernelVersion})` : "";
    return [
      `NVIDIA's Vulkan driver loads but offers no adapter: nvidia-smi must work, and ${same}${version}. 580 is known to work; update an older one.`,
    ];
  }
  const stray = d.strayDrivers.find(({ file, problem }) => problem === null && /nvidia/i.test(file));
  if (stray) return [strayAdvice(stray.file)];
  if (d.nvidia.libraryProblem !== null) {
    const library = d.nvidia.strayLibrary;
    if (library === null) return [graphicsAdvice(d)];
    const folder = library.slice(0, library.lastIndexOf("/"));
    const file = d.strayDrivers.find((driver) => /nvidia/i.test(driver.file))?.file;
    const driver = file && drivers.length === 0 ? ` VK_DRIVER_FILES=${file}` : "";
    return [`NVIDIA's libraries are not on the linker's path: export LD_LIBRARY_PATH=${folder}${driver}`];
  }
  if (drivers.length > 0) return [];
  return [
    "NVIDIA's library is here but no driver file (ICD) names it: " +
      `mkdir -p /etc/vulkan/icd.d && echo '${NVIDIA_ICD}' > /etc/vulkan/icd.d/nvidia_icd.json`,
  ];
}

const strayAdvice = (file: string): string =>
  `A driver file lies where the Vulkan loader does not look: export VK_DRIVER_FILES=${file}`;

/** The smallest file with which a Vulkan loader finds NVIDIA's driver. */
const NVIDIA_ICD =
  '{"file_format_version":"1.0.0","ICD":{"library_path":"libGLX_nvidia.so.0","api_version":"1.3.0"}}';

/** NVIDIA's Vulkan driver comes into a container only with the capability `graphics`. */
function graphicsAdvice(d: Diagnosis): string {
  const missing = "libGLX_nvidia.so.0, which is NVIDIA's Vulkan driver, cannot be loaded";
  const capabilities = d.environment.NVIDIA_DRIVER_CAPABILITIES;
  const lacks = capabilities !== undefined && !/\b(?:all|graphics)\b/.test(capabilities);
  if (lacks || (capabilities === undefined && inContainer(d)))
    return (
      `${missing}: NVIDIA_DRIVER_CAPABILITIES is ${capabilities ?? "not set"} and must include graphics. Start the ` +
      "container with -e NVIDIA_DRIVER_CAPABILITIES=all, or compute,utility,graphics."
    );
  if (inContainer(d))
    return (
      `${missing}, although NVIDIA_DRIVER_CAPABILITIES is ${capabilities}: the host has the driver without graphics ` +
      `(Ubuntu: install libnvidia-gl of the same version on the host), or it lacks a library: ${d.nvidia.libraryProblem}.`
    );
  return (
    `${missing} (${d.nvidia.libraryProblem}): the driver is installed for computing only. Debian: apt-get install ` +
    "nvidia-vulkan-icd; Ubuntu: apt-get install libnvidia-gl-<version>, the version that nvidia-smi tells."
  );
}

/** AMD, Intel and the rest: a render node, Mesa's driver file, and the right to use the node. */
function otherGpuAdvice(d: Diagnosis): string[] {
  const nodes = d.devices.filter(({ path }) => /dri\/renderD\d+$/.test(path));
  // NVIDIA's cards have render nodes too, and were spoken of.
  const isNvidia = d.devices.some(({ path }) => /nvidia\d+$/.test(path));
  if (d.wsl && d.devices.some(({ path }) => path.endsWith("/dxg")))
    return [
      "Windows' subsystem for Linux reaches the GPU through /dev/dxg only: run Quire on Windows itself (Node or Deno), or use --adapter software.",
    ];
  if (nodes.length === 0 || isNvidia) return [];
  const locked = nodes.filter(({ usable }) => !usable);
  if (locked.length > 0) return [permissionAdvice(d, locked)];
  const stray = d.strayDrivers.find(({ problem }) => problem === null);
  const hardware = d.drivers.filter(({ file, library }) => !SOFTWARE_DRIVER.test(`${file} ${library}`));
  if (hardware.length > 0 || d.missingDriverFiles.length > 0) return [];
  if (stray) return [strayAdvice(stray.file)];
  return [
    `${nodes[0]!.path} is here but no Vulkan driver (ICD) for it. Debian and Ubuntu: apt-get install mesa-vulkan-drivers.`,
  ];
}

const SOFTWARE_DRIVER = /swiftshader|lvp_icd|libvulkan_lvp/i;

function permissionAdvice(d: Diagnosis, locked: Diagnosis["devices"]): string {
  const groups = [...new Set(locked.map(({ group }) => group))];
  const how = inContainer(d)
    ? `start the container with ${groups.map((g) => `--group-add ${g}`).join(" ")}, or as root`
    : groups.every((g) => g === "root")
      ? "let an administrator set its mode to 0666"
      : `sudo usermod -aG ${groups.join(",")} $USER (usually render or video), then log in again`;
  return `No permission to use ${locked.map(({ path }) => path).join(", ")}: ${how}.`;
}

function brokenDriverAdvice(d: Diagnosis): string[] {
  const advice = d.drivers
    // A driver for 32-bit programs lies beside the one for 64 bits on many systems.
    .filter(({ problem }) => problem !== null && !/wrong ELF class/.test(problem))
    .filter(
      ({ file, library }) => !(d.nvidia.libraryProblem !== null && /nvidia/i.test(`${file} ${library}`)),
    )
    .map(
      ({ file, problem }) =>
        `The driver file ${file} is of no use: ${problem}. Reinstall its package or remove it.`,
    );
  const lavapipe = d.drivers.find(
    ({ file, library, problem }) => problem === null && /lvp_icd|libvulkan_lvp/.test(`${file} ${library}`),
  );
  if (lavapipe && d.runtime.name === "node" && !d.adapters.some((name) => /llvmpipe|lavapipe/i.test(name)))
    advice.push(
      "Mesa's software driver lavapipe is installed, but too old for Dawn (Debian 12's 22.3 is): Quire uses SwiftShader instead; Deno can use it.",
    );
  return advice;
}

function noDeviceAdvice(d: Diagnosis): string {
  if (d.drivers.some(({ problem }) => problem === null) && d.devices.length > 0)
    return "A Vulkan driver is installed, but offers no adapter that WebGPU accepts: update it, or the image that it is in.";
  const none = "No GPU is visible (no /dev/nvidia0, no /dev/dri)";
  if (inContainer(d))
    return `${none}: start the container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all (NVIDIA), or --device /dev/dri (AMD, Intel).`;
  return `${none}: if this machine has one, its kernel driver is not loaded.`;
}

function softwareAdvice(d: Diagnosis): string[] {
  if (d.chosen?.software)
    return [
      "Everything runs on the software adapter, a CPU that plays GPU: results are correct, times are no benchmark.",
    ];
  if (d.softwareMissing === null)
    return wantsGpu(d) ? ["--adapter software works without a GPU: correct, slow, no benchmark."] : [];
  const mesa =
    d.runtime.platform === "linux" && d.packages.swiftshader !== null
      ? " Mesa's lavapipe (package mesa-vulkan-drivers, newer than Debian 12's) can stand in."
      : "";
  return [`No software adapter: ${d.softwareMissing}.${mesa}`];
}

/** Docker, Podman, Kubernetes and others, or an image that was made for NVIDIA's container runtime. */
function inContainer(d: Diagnosis): boolean {
  return d.container.length > 0 || d.environment.NVIDIA_VISIBLE_DEVICES !== undefined;
}
