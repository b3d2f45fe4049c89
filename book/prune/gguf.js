// Remove layers from a GGUF file without touching a weight: the header is written anew, the tensors stay bytes of the old file.
//
// A GGUF file is a header and data. The header: magic, version, the numbers of tensors and of fields; the fields (key, kind,
// value); the tensor directory (name, shape, kind, where its data begin); all little-endian. The tensors of layer i are called
// `blk.i.…`. To remove layers is to leave their tensors out, to number the others anew, and to say so in the fields: the count
// of layers, and every list with one entry a layer. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

const STRING = 8, LIST = 9, UINT32 = 4, INT32 = 5;
const BYTES = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 }; // of a value, by its kind
const LAYER = /^blk\.(\d+)\./;
// lists that are no list of layers, whatever their length
const NOT_A_LAYER_LIST = /rope\.dimension_sections$/;
// a number that says which layers are of which kind by counting them: not to be read off any more once layers are gone
const COUNTS_LAYERS = /(pattern|_interval|_step|leading_dense_block_count|nextn_predict_layers|shared_kv_layers|every_n_layers)$/;

const text = new TextDecoder();

// The header in `bytes` (Uint8Array, from the file's first byte). Throws RangeError if it goes on behind the end of `bytes`,
// and Error if this is no GGUF file of a kind that we know.
export function readHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const u32 = () => view.getUint32((at += 4) - 4, true);
  const u64 = () => Number(view.getBigUint64((at += 8) - 8, true));
  const skip = (length) => {
    if ((at += length) > bytes.length) throw new RangeError("the header goes on");
  };
  const string = () => {
    const length = u64(), begin = at;
    skip(length);
    return text.decode(bytes.subarray(begin, at));
  };
  const value = (kind) => {
    if (kind === STRING) return { kind, begin: at, text: string() };
    if (kind !== LIST) {
      if (!(kind in BYTES)) throw new Error(`This GGUF file is damaged: it has a value of an unknown kind, ${kind}.`);
      const begin = at;
      skip(BYTES[kind]);
      const whole = kind === UINT32 || kind === INT32 ? view.getUint32(begin, true) : undefined;
      return { kind, begin, number: whole };
    }
    const of = u32(), count = u64(), begin = at;
    if (of in BYTES) skip(count * BYTES[of]);
    else for (let i = 0; i < count; i++) value(of);
    return { kind, of, count, begin };
  };

  if (text.decode(bytes.subarray(0, 4)) !== "GGUF") throw new Error("This is no GGUF file: it doesn't begin with GGUF.");
  at = 4;
  const version = u32();
  if (version !== 2 && version !== 3) throw new Error(`This GGUF file has version ${version}; 2 and 3 can be read here.`);
  const counts = { tensors: u64(), fields: u64() };
  const fields = [], tensors = [];
  for (let i = 0; i < counts.fields; i++) {
    const begin = at, key = string(), kind = u32();
    fields.push({ key, ...value(kind), from: begin, to: at });
  }
  for (let i = 0; i < counts.tensors; i++) {
    const name = string(), shapeAt = at;
    skip(8 * u32());
    skip(4);
    tensors.push({ name, shapeAndKind: bytes.slice(shapeAt, at), offset: u64() });
  }
  const alignment = fields.find((field) => field.key === "general.alignment")?.number ?? 32;
  const architecture = fields.find((field) => field.key === "general.architecture")?.text;
  const layers = fields.find((field) => field.key === `${architecture}.block_count`)?.number;
  if (!layers) throw new Error("This GGUF file doesn't say how many layers its model has.");
  return { bytes, version, fields, tensors, alignment, architecture, layers, dataBegins: up(at, alignment) };
}

// The header of `blob` (a Blob of a whole GGUF file). Only as much of it is read as the header needs.
export async function headerOf(blob) {
  for (let size = 1 << 22; ; size *= 2) {
    const bytes = new Uint8Array(await blob.slice(0, size).arrayBuffer());
    try {
      return readHeader(bytes);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      if (bytes.length === blob.size) throw new Error("This GGUF file is damaged, or was cut short: load the page again.");
    }
  }
}

// A Blob of the same model without the layers `removed` (numbers from 0). Nothing is copied but the header: the data are
// slices of `blob`. Throws Error if there is no such layer, none is left, or the file numbers layers in a way unknown here.
export async function removeLayers(blob, removed) {
  const header = await headerOf(blob);
  const renumbered = newNumbers(header.layers, removed);
  const kept = header.tensors.flatMap((tensor) => {
    const found = LAYER.exec(tensor.name);
    if (!found) return [tensor];
    const number = renumbered[Number(found[1])];
    return number === null ? [] : [{ ...tensor, name: tensor.name.replace(LAYER, `blk.${number}.`) }];
  });
  const ends = endsOfTensors(header, blob.size);
  const data = [];
  let offset = 0;
  const directory = kept.map((tensor) => {
    const [begin, end] = [header.dataBegins + tensor.offset, header.dataBegins + ends.get(tensor.offset)];
    const padding = up(end - begin, header.alignment) - (end - begin);
    data.push(blob.slice(begin, end), new Uint8Array(padding));
    const entry = concat([string(tensor.name), tensor.shapeAndKind, u64(offset)]);
    offset += end - begin + padding;
    return entry;
  });
  const fields = header.fields.map((field) => rewritten(field, header, renumbered));
  const start = [ascii("GGUF"), u32(header.version), u64(kept.length), u64(fields.length)];
  const head = concat([...start, ...fields, ...directory]);
  return new Blob([head, new Uint8Array(up(head.length, header.alignment) - head.length), ...data]);
}

// For each layer its number when `removed` are gone, null for those. [0, null, 1] for layer 1 of 3.
function newNumbers(layers, removed) {
  const gone = new Set(removed);
  for (const layer of gone) {
    if (!Number.isInteger(layer) || layer < 0 || layer >= layers)
      throw new Error(`There is no layer ${layer}: this model has layers 0 to ${layers - 1}.`);
  }
  if (gone.size === layers) throw new Error("At least one layer must stay.");
  let next = 0;
  return Array.from({ length: layers }, (_, layer) => (gone.has(layer) ? null : next++));
}

// Where the data of the tensor that begins at an offset end: at the next one, or at the end of the file. By offset.
function endsOfTensors(header, fileSize) {
  const offsets = header.tensors.map((tensor) => tensor.offset).sort((a, b) => a - b);
  return new Map(offsets.map((offset, i) => [offset, offsets[i + 1] ?? fileSize - header.dataBegins]));
}

// The bytes of a field, as they were or changed to what is true of the layers that are left.
function rewritten(field, header, renumbered) {
  const bytes = header.bytes.slice(field.from, field.to);
  const ofThisModel = field.key.startsWith(`${header.architecture}.`);
  const cut = renumbered.includes(null);
  if (!ofThisModel || !cut) return bytes;
  const valueAt = field.begin - field.from;
  if (field.key === `${header.architecture}.block_count`) {
    new DataView(bytes.buffer).setUint32(valueAt, renumbered.filter((number) => number !== null).length, true);
    return bytes;
  }
  if (field.kind === LIST && field.count === header.layers && field.of in BYTES && !NOT_A_LAYER_LIST.test(field.key)) {
    const size = BYTES[field.of];
    const entry = (layer) => bytes.subarray(valueAt + layer * size, valueAt + (layer + 1) * size);
    const left = renumbered.flatMap((number, layer) => (number === null ? [] : [entry(layer)]));
    return concat([bytes.subarray(0, valueAt - 8), u64(left.length), ...left]);
  }
  if (field.kind !== LIST && COUNTS_LAYERS.test(field.key))
    throw new Error(`Layers can't be removed from this file here: ${field.key} tells its layers apart by counting them.`);
  return bytes;
}

const up = (size, alignment) => Math.ceil(size / alignment) * alignment;
const ascii = (word) => new TextEncoder().encode(word);
const string = (word) => concat([u64(ascii(word).length), ascii(word)]);

function u32(number) {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, number, true);
  return bytes;
}

function u64(number) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(number), true);
  return bytes;
}

function concat(parts) {
  const joined = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
