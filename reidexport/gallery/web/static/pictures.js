// Pictures that are refused before they are sent; the server looks closer.

const FORMATS = [[0xff, 0xd8, 0xff], [0x89, 0x50, 0x4e, 0x47], [0x52, 0x49, 0x46, 0x46], [0x42, 0x4d]];

// What is wrong with a file, or null.
export async function refusedPicture(file, maxMib) {
  if (file.size > maxMib * 2 ** 20) {
    const mib = (file.size / 2 ** 20).toFixed(1);
    return new Error(`${file.name}: the picture has ${mib} MiB, at most ${maxMib} are taken. Send a smaller one, or cut the person out.`);
  }
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  if (FORMATS.some((format) => format.every((byte, i) => start[i] === byte))) return null;
  return new Error(`${file.name}: this is no picture. Choose a JPEG, PNG, WebP or BMP file.`);
}
