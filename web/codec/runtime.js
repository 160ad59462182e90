/** Networks by ONNX Runtime, from this page's own copy: WebGPU where there is one, else WebAssembly on one thread. */

const DIST = new URL("../vendor/onnxruntime-web/", import.meta.url);

/** The graph y = x, to try an execution provider on. */
const IDENTITY = Uint8Array.from(
  atob("CAgSADo3ChAKAXgSAXkiCElkZW50aXR5EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDw=="),
  (character) => character.charCodeAt(0),
);

/**
 * @returns {Promise<{name: string, runtime: import("./codec.js").Runtime}>}
 */
export async function openRuntime() {
  if (await hasGpu()) {
    try {
      const ort = await load("ort.webgpu.bundle.min.mjs");
      await ort.InferenceSession.create(IDENTITY, { executionProviders: ["webgpu"] });
      return { name: "WebGPU", runtime: runtimeOf(ort, "webgpu") };
    } catch (error) {
      console.warn("WebGPU does not work here, so WebAssembly is used:", error);
    }
  }
  const ort = await load("ort.wasm.bundle.min.mjs");
  await ort.InferenceSession.create(IDENTITY, { executionProviders: ["wasm"] }); // compiles it, while the weights arrive
  return { name: "WebAssembly", runtime: runtimeOf(ort, "wasm") };
}

async function hasGpu() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

async function load(bundle) {
  const ort = await import(new URL(bundle, DIST).href);
  ort.env.wasm.wasmPaths = DIST.href;
  ort.env.wasm.numThreads = 1;
  return ort;
}

/** @returns {import("./codec.js").Runtime} */
export function runtimeOf(ort, provider) {
  return async (graph, weights) => {
    const session = await ort.InferenceSession.create(graph, {
      executionProviders: [provider],
      logSeverityLevel: 3, // errors; it would warn of constants that its own optimizer has made superfluous
      externalData: [{ path: "weights.bin", data: weights }],
    });
    const [output] = session.outputNames;
    return async (...inputs) => {
      const tensors = inputs.map(([values, shape], i) => [session.inputNames[i], new ort.Tensor("float32", values, shape)]);
      const { [output]: result } = await session.run(Object.fromEntries(tensors));
      return /** @type {Float32Array} */ (result.data);
    };
  };
}
