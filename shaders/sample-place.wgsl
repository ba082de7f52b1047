// Part of sample: what it has to know of a sequence beside its settings, and where its token goes. A recorded decode step keeps
// both in arrays that the sampler advances by one token; a step of any sequences, new each time, has them from the host.

// False: the next step's arrays are the host's affair. Settings then say of every row, behind its first 8 words, what the step
// arrays would: generated, the token's index in `tokens` (NONE: a row of padding, which gets no token), and the row of `seen`
// (NONE: there is no penalty, and nothing is noted).
override ADVANCES: bool = true;
override SETTINGS: u32 = 8u; // words of a row of settings

// What the sampler has to know of a sequence beside its settings.
struct Place {
  position: u32,  // of the token to be chosen
  generated: u32, // tokens before it, which count the random numbers
  ring: u32,
  at: u32,        // where in `tokens` it goes
}

fn place_of(s: u32) -> Place {
  if (ADVANCES) {
    let stride = params.step_stride;
    let ring = step[5u * stride + s];
    let at = (ring % params.ring_size) * params.token_stride + s;
    return Place(step[stride + s] + 1u, step[4u * stride + s], ring, at);
  }
  let more = s * SETTINGS + 8u;
  return Place(0u, settings[more], 0u, settings[more + 1u]);
}

// The row of `seen`. By itself, so that compilers see that it is the same for all threads.
fn seen_row_of(s: u32) -> u32 {
  if (ADVANCES) {
    return s;
  }
  return settings[s * SETTINGS + 10u];
}

// Writes what the token decides of the next step: one thread.
fn write_token(s: u32, token: u32, place: Place) {
  if (ADVANCES) {
    let stride = params.step_stride;
    step[s] = select(token, 0u, token == NONE);
    step[4u * stride + s] = place.generated + 1u;
    step[5u * stride + s] = place.ring + 1u;
  }
  tokens[place.at] = token;
  let seen_row = seen_row_of(s);
  if (token != NONE && seen_row != NONE) {
    seen[seen_row * params.seen_words + token / 32u] |= 1u << (token % 32u);
  }
}

// Writes where the token goes: another thread, whose look at the slot table takes as long as the other's at `seen`.
fn write_place(s: u32, position: u32) {
  if (!ADVANCES) {
    return;
  }
  let stride = params.step_stride;
  var slot = 0u;
  if (position < params.max_positions) {
    slot = slot_of(s, position);
  }
  step[stride + s] = position;
  step[2u * stride + s] = slot;
  step[3u * stride + s] = position + 1u;
}
