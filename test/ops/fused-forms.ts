import process from "node:process";
import { afterAll } from "vitest";
import { Gpu } from "../../src/gpu/gpu.ts";

/** A Gpu and whom the sizes of its kernels are made for. */
export interface Form {
  readonly form: string;
  readonly on: Gpu;
}

/**
 * The sizes that a kernel has on a GPU and those it has on the software adapter, on whatever adapter is here: two Gpus,
 * closed after the last test of the file. With "portable" a third one, a GPU's sizes without optional features.
 */
export async function openForms(portable?: "portable"): Promise<Form[]> {
  const { QUIRE_TEST_ADAPTER: adapter = "auto", QUIRE_TEST_KERNELS } = process.env;
  const kernels = QUIRE_TEST_KERNELS === "portable" ? "portable" : "auto";
  const forms: Form[] = [];
  for (const form of ["software", "gpu"] as const)
    forms.push({ form, on: await Gpu.open({ adapter, kernels, forms: form }) });
  if (portable)
    forms.push({ form: "gpu, portable", on: await Gpu.open({ adapter, kernels: portable, forms: "gpu" }) });
  afterAll(() => Promise.all(forms.map(({ on }) => on.close())));
  return forms;
}
