/** A picture as a link: the bytes of its .gc file behind the "#" of the page's address, in base64url. Servers never see them. */

import { UserError } from "./codec/errors.js";

const PIECE = 0x8000; // bytes that are spelt at once

/** @param {Uint8Array} bytes */
export function toText(bytes) {
  let characters = "";
  for (let at = 0; at < bytes.length; at += PIECE) characters += String.fromCharCode(...bytes.subarray(at, at + PIECE));
  return btoa(characters).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** The inverse of toText. Throws UserError for any other text. */
export function fromText(text) {
  try {
    if (!/^[\w-]+$/.test(text)) throw new Error("other characters");
    return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
  } catch {
    throw new UserError("This link is damaged: what follows its # is not a picture.");
  }
}

/** @param {Uint8Array} bytes @param {string} address of the page */
export const linkTo = (bytes, address) => `${address.split("#")[0]}#${toText(bytes)}`;
