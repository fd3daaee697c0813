// Uploads that are refused before they are sent; the server checks the rest.

const FORMATS = [[0xff, 0xd8, 0xff], [0x89, 0x50, 0x4e, 0x47], [0x52, 0x49, 0x46, 0x46], [0x42, 0x4d]];

// What is wrong with a file, or null.
export async function uploadProblem(file, maxMib) {
  if (file.size > maxMib * 2 ** 20) {
    const mib = (file.size / 2 ** 20).toFixed(1);
    return new Error(`${file.name}: the image has ${mib} MiB, and the limit is ${maxMib}. Send a smaller one, or crop it to the person.`);
  }
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  if (FORMATS.some((format) => format.every((byte, i) => start[i] === byte))) return null;
  return new Error(`${file.name}: this is not an image. Choose a JPEG, PNG, WebP or BMP file.`);
}
