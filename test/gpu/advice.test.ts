import { describe, expect, it } from "vitest";
import type { AdapterInfo } from "../../src/gpu/adapter.ts";
import { advise } from "../../src/gpu/advice.ts";
import type { Diagnosis } from "../../src/gpu/diagnosis.ts";

const SWIFTSHADER: AdapterInfo = {
  vendor: "google",
  architecture: "swiftshader",
  device: "SwiftShader",
  description: "SwiftShader",
  driver: undefined,
  software: true,
  runtime: "node",
  implementation: "webgpu 0.6.2 (Dawn)",
  loader: "system",
  profile: "safe",
  features: ["timestamp-query"],
  subgroupSize: 4,
};
const H200: AdapterInfo = { ...SWIFTSHADER, description: "NVIDIA H200", software: false };

/** A Debian machine with a loader, without a GPU, that runs on SwiftShader. */
const BARE: Diagnosis = {
  runtime: {
    name: "node",
    version: "20.20.2",
    platform: "linux",
    arch: "x64",
    system: "Debian GNU/Linux 12 (bookworm)",
    cpus: 2,
    memoryBytes: 2 ** 33,
  },
  packages: { quire: "0.1.0", webgpu: "0.6.2", swiftshader: "147.0.0" },
  container: [],
  wsl: false,
  environment: {},
  loader: { kind: "system", path: "/usr/lib/x86_64-linux-gnu/libvulkan.so.1", problem: null },
  drivers: [],
  strayDrivers: [],
  missingDriverFiles: [],
  devices: [],
  nvidia: { kernelVersion: null, libraryProblem: "libGLX_nvidia.so.0: cannot open", strayLibrary: null },
  adapters: [],
  dawnProblem: null,
  softwareMissing: null,
  choice: "auto",
  chosen: SWIFTSHADER,
  openProblem: null,
};

const node = (path: string, usable = true, group = "root") => ({ path, usable, group });
const driver = (file: string, library: string, problem: string | null = null) => ({
  file,
  library,
  apiVersion: "1.3.242",
  problem,
});
const NVIDIA_DRIVER = driver("/usr/share/vulkan/icd.d/nvidia_icd.json", "libGLX_nvidia.so.0");
const LAVAPIPE = driver("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json", "libvulkan_lvp.so");

/** A machine with an NVIDIA GPU whose driver files are all there. */
const NVIDIA: Diagnosis = {
  ...BARE,
  devices: [node("/dev/nvidia0"), node("/dev/nvidiactl")],
  nvidia: { kernelVersion: "580.95.05", libraryProblem: null, strayLibrary: null },
  drivers: [NVIDIA_DRIVER],
};
const NO_LIBRARY = { ...NVIDIA.nvidia, libraryProblem: "libGLX_nvidia.so.0: cannot open" };
const CONTAINER = { container: ["/.dockerenv"] };

const SITUATIONS: [name: string, diagnosis: Diagnosis, first: RegExp][] = [
  ["no GPU", BARE, /^No GPU is visible.*kernel driver is not loaded/],
  [
    "no GPU in a container",
    { ...BARE, ...CONTAINER },
    /--gpus all -e NVIDIA_DRIVER_CAPABILITIES=all.*--device \/dev\/dri/,
  ],
  [
    "a container without the graphics capability",
    {
      ...NVIDIA,
      ...CONTAINER,
      drivers: [],
      nvidia: NO_LIBRARY,
      environment: { NVIDIA_DRIVER_CAPABILITIES: "compute,utility" },
    },
    /NVIDIA_DRIVER_CAPABILITIES is compute,utility and must include graphics.*-e NVIDIA_DRIVER_CAPABILITIES=all/,
  ],
  [
    "the same with the driver file of the image, whose library is missing",
    {
      ...NVIDIA,
      nvidia: NO_LIBRARY,
      drivers: [{ ...NVIDIA_DRIVER, problem: "cannot open" }],
      environment: { NVIDIA_DRIVER_CAPABILITIES: "utility" },
    },
    /must include graphics/,
  ],
  [
    "a container that says nothing of capabilities",
    { ...NVIDIA, ...CONTAINER, drivers: [], nvidia: NO_LIBRARY },
    /NVIDIA_DRIVER_CAPABILITIES is not set and must include graphics/,
  ],
  [
    "all capabilities, but a host without the graphics driver",
    {
      ...NVIDIA,
      ...CONTAINER,
      drivers: [],
      nvidia: NO_LIBRARY,
      environment: { NVIDIA_DRIVER_CAPABILITIES: "all" },
    },
    /although NVIDIA_DRIVER_CAPABILITIES is all: the host has the driver without graphics/,
  ],
  [
    "a server with the compute driver only",
    { ...NVIDIA, drivers: [], nvidia: NO_LIBRARY },
    /for computing only.*libnvidia-gl-/,
  ],
  [
    "NVIDIA's library outside the linker's path",
    {
      ...NVIDIA,
      drivers: [],
      nvidia: { ...NO_LIBRARY, strayLibrary: "/usr/local/nvidia/lib64/libGLX_nvidia.so.0" },
    },
    /export LD_LIBRARY_PATH=\/usr\/local\/nvidia\/lib64$/,
  ],
  [
    "NVIDIA's library without a driver file",
    { ...NVIDIA, drivers: [] },
    /no driver file.*\/etc\/vulkan\/icd.d\/nvidia_icd.json/,
  ],
  [
    "NVIDIA's driver file in an odd place",
    {
      ...NVIDIA,
      drivers: [],
      strayDrivers: [driver("/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json", "libGLX_nvidia.so.0")],
    },
    /export VK_DRIVER_FILES=\/usr\/local\/nvidia\/share\/vulkan\/icd.d\/nvidia_icd.json$/,
  ],
  ["NVIDIA's driver loads but is refused", NVIDIA, /loads but offers no adapter.*580\.95\.05/],
  [
    "no right to use /dev/nvidia0",
    { ...NVIDIA, devices: [node("/dev/nvidia0", false, "video")] },
    /No permission.*usermod -aG video/,
  ],
  [
    "a kernel driver without device files",
    { ...NVIDIA, devices: [] },
    /580\.95\.05 is loaded but no \/dev\/nvidia0.*nvidia-smi/,
  ],
  [
    "the same in a container",
    { ...NVIDIA, ...CONTAINER, devices: [] },
    /no \/dev\/nvidia0 is here: start the container with --gpus all/,
  ],
  [
    "an AMD or Intel GPU without a driver file",
    { ...BARE, devices: [node("/dev/dri/renderD128")] },
    /mesa-vulkan-drivers/,
  ],
  [
    "an AMD or Intel GPU that only a group may use",
    { ...BARE, devices: [node("/dev/dri/renderD128", false, "render")] },
    /No permission to use \/dev\/dri\/renderD128: sudo usermod -aG render/,
  ],
  [
    "the same in a container",
    { ...BARE, ...CONTAINER, devices: [node("/dev/dri/renderD128", false, "109")] },
    /--group-add 109/,
  ],
  [
    "no Vulkan loader",
    { ...NVIDIA, loader: { kind: "none", path: null, problem: null } },
    /^There is no Vulkan loader.*libvulkan1/,
  ],
  [
    "no Vulkan loader for Deno",
    {
      ...NVIDIA,
      runtime: { ...BARE.runtime, name: "deno" },
      loader: { kind: "none", path: null, problem: null },
    },
    /libvulkan1.*LD_LIBRARY_PATH/,
  ],
  [
    "a variable that names a file which is not there",
    {
      ...NVIDIA,
      environment: { VK_DRIVER_FILES: "/nope.json" },
      missingDriverFiles: ["/nope.json"],
      drivers: [],
    },
    /does not exist \(\/nope\.json\): unset VK_DRIVER_FILES/,
  ],
  [
    "a variable that hides the GPU",
    { ...NVIDIA, environment: { VK_ICD_FILENAMES: "/tmp/vk_swiftshader_icd.json" }, drivers: [] },
    /VK_ICD_FILENAMES restricts Vulkan/,
  ],
  [
    "a broken driver file",
    {
      ...BARE,
      devices: [node("/dev/dri/renderD128")],
      drivers: [driver("/etc/vulkan/icd.d/x.json", "libx.so", "libx.so: cannot open")],
    },
    /\/etc\/vulkan\/icd\.d\/x\.json is of no use: libx\.so: cannot open/,
  ],
  ["lavapipe that Dawn refuses", { ...BARE, drivers: [LAVAPIPE] }, /lavapipe is installed, but too old/],
  [
    "Windows' subsystem for Linux",
    { ...BARE, wsl: true, devices: [node("/dev/dxg")] },
    /run Quire on Windows itself/,
  ],
  [
    "a GPU that cannot be opened",
    { ...NVIDIA, adapters: ["NVIDIA H200"] },
    /Dawn lists NVIDIA H200 but cannot use it/,
  ],
  [
    "a name that fits no adapter",
    { ...NVIDIA, adapters: ["NVIDIA H200"], choice: "amd", chosen: null },
    /NVIDIA H200: choose it/,
  ],
  [
    "macOS without an adapter",
    { ...BARE, runtime: { ...BARE.runtime, platform: "darwin" } },
    /update the graphics driver/,
  ],
  [
    "webgpu not installed",
    { ...BARE, packages: { ...BARE.packages, webgpu: null }, dawnProblem: "not found", chosen: null },
    /run npm ci/,
  ],
  [
    "musl",
    {
      ...BARE,
      runtime: { ...BARE.runtime, system: "Alpine Linux v3.20" },
      dawnProblem: "no such file",
      chosen: null,
    },
    /needs glibc.*Debian/,
  ],
  [
    "an old glibc",
    { ...BARE, dawnProblem: "version `GLIBC_2.34' not found", chosen: null },
    /newer C library than Debian/,
  ],
  [
    "Dawn that cannot be loaded",
    { ...BARE, dawnProblem: "bad image", chosen: null },
    /cannot be loaded on linux on x64/,
  ],
];

describe("advise", () => {
  it.each(SITUATIONS)("%s", (_name, diagnosis, first) => {
    expect(advise(diagnosis)[0]).toMatch(first);
  });

  it("has nothing to say of a GPU that works", () => {
    expect(advise({ ...NVIDIA, chosen: H200, adapters: ["NVIDIA H200"] })).toEqual([]);
  });

  it("says of a GPU on Deno, or without timestamps, what benchmarks lose", () => {
    const chosen = { ...H200, features: [] };
    const deno = { ...BARE.runtime, name: "deno" as const };
    const [first, second] = advise({ ...NVIDIA, runtime: deno, chosen });
    expect(first).toContain("use Node for benchmarks");
    expect(second).toContain("no timestamp-query");
  });

  it("does not look for a GPU that nobody asked for", () => {
    const advice = advise({ ...BARE, choice: "software" });
    expect(advice).toHaveLength(1);
    expect(advice[0]).toMatch(/software adapter.*no benchmark/);
  });

  it("names what keeps the software adapter away, when nothing else is there either", () => {
    const arm = { ...BARE.runtime, arch: "arm64" };
    const advice = advise({ ...BARE, runtime: arm, softwareMissing: "Linux on x64 only", chosen: null });
    expect(advice.at(-1)).toMatch(/^No software adapter: Linux on x64 only\. Mesa's lavapipe/);
  });

  it("offers the software adapter to those who asked for a GPU in vain", () => {
    expect(advise({ ...BARE, choice: "gpu", chosen: null }).at(-1)).toMatch(/^--adapter software works/);
  });

  it("does not mistake a driver for 32-bit programs for a broken one", () => {
    const drivers = [
      driver("/usr/share/vulkan/icd.d/intel_icd.i686.json", "libvulkan_intel.so", "wrong ELF class"),
    ];
    expect(advise({ ...BARE, drivers }).join()).not.toContain("of no use");
  });
});
