/** A mistake of the user's, or a file that is not what it should be: its message is one sentence for the page. */
export class UserError extends Error {}
