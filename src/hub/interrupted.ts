/** A transfer that failed for a reason that may pass: the network, a busy server. Another attempt may succeed. */
export class Interrupted extends Error {
  override name = "Interrupted";
}
