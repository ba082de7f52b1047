/** No adapter that fits what was asked for. The command line exits 3. */
export class NoAdapter extends Error {
  override name = "NoAdapter";
}

/** The device is gone (driver reset, unplugged, destroyed): nothing on this Gpu works any more. */
export class DeviceLost extends Error {
  override name = "DeviceLost";
}

/** An allocation that the budget, or the device, refuses. The message holds the ledger's breakdown. */
export class OutOfMemory extends Error {
  override name = "OutOfMemory";
}

/** A validation or internal error that WebGPU reported late; the message says during what. */
export class GpuError extends Error {
  override name = "GpuError";
}
