// Part: what happens to a product before it is stored, and the two forms of GELU, x · Φ(x) with the normal distribution Φ
// (Hendrycks and Gimpel, 2016).

const NONE = 0u;
const GELU_TANH = 1u;
const GELU_ERF = 2u;
const ADD_RESIDUAL = 3u;
override EPILOGUE: u32 = NONE;

const SQRT_2_OVER_PI = 0.7978845608028654;
const SQRT_1_OVER_2 = 0.7071067811865476;

// From here on tanh is within half a unit of ±1 in f32; some drivers compute it with exp(2x), which overflows further out.
const TANH_LIMIT = 9.01;

// GPT-2's own form: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).
fn gelu_tanh(x: vec4f) -> vec4f {
  let inner = SQRT_2_OVER_PI * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1.0 + tanh(clamp(inner, vec4f(-TANH_LIMIT), vec4f(TANH_LIMIT))));
}

// erf by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: absolute error below 1.5e-7.
fn erf4(x: vec4f) -> vec4f {
  let z = abs(x);
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - series * exp(-z * z));
}

// The exact form: 0.5 x (1 + erf(x / √2)).
fn gelu_erf(x: vec4f) -> vec4f {
  return 0.5 * x * (1.0 + erf4(x * SQRT_1_OVER_2));
}

// The epilogue's activation; a residual is the kernel's own affair.
fn activate(x: vec4f) -> vec4f {
  switch (EPILOGUE) {
    case GELU_TANH: { return gelu_tanh(x); }
    case GELU_ERF: { return gelu_erf(x); }
    default: { return x; }
  }
}
