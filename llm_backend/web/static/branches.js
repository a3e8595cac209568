// Branches of a conversation: an edited question or an answer generated again begins another branch,
// which is the list of all messages up to its last answer.
//
// Branches share the messages that they have in common, as the same objects.

export class Branches {
  #branches = [];

  /** The branches of stored completions, earliest first, without those that a later one continues. */
  static of(stored) {
    const branches = new Branches(),
      keys = new Map(stored.map((branch) => [branch, branch.map(keyOf)]));
    const isStartOf = (branch, other) =>
      keys.get(branch).every((key, index) => keys.get(other)[index] === key);
    for (const [index, branch] of stored.entries()) {
      if (stored.slice(index + 1).some((other) => isStartOf(branch, other))) continue;
      branches.share(branch);
      branches.add(branch);
    }
    return branches;
  }

  add(branch) {
    if (!this.#branches.includes(branch)) this.#branches.push(branch);
  }

  /** The variants of a branch's message: the messages at its index in all branches that share the
   *  messages before it. */
  variants(branch, index) {
    const others = this.#sharingPrefix(branch, index).map((other) => other[index]);
    return [...new Set(others)].filter(Boolean);
  }

  /** The latest branch with another variant of a message: the one `step` after this branch's. */
  sibling(branch, index, step) {
    const variants = this.variants(branch, index),
      next = variants[variants.indexOf(branch[index]) + step];
    return this.#sharingPrefix(branch, index).findLast((other) => other[index] === next);
  }

  /** The ids of the stored completions that hold the branches. */
  get storedIds() {
    return this.#branches.map((branch) => branch.at(-1)?.storedId);
  }

  #sharingPrefix(branch, index) {
    const prefix = branch.slice(0, index);
    return this.#branches.filter((other) => prefix.every((message, at) => other[at] === message));
  }

  /** Replaces a branch's messages by the same ones of earlier branches. */
  share(branch) {
    for (let index = 0; index < branch.length; index += 1) {
      const key = keyOf(branch[index]),
        same = this.variants(branch, index).find((message) => keyOf(message) === key);
      if (!same) return;
      branch[index] = same;
    }
  }
}

const keyOf = ({ role, content, images, documents, calls, callId }) =>
  JSON.stringify([role, content, images ?? [], documents ?? [], (calls ?? []).map(({ id }) => id), callId]);
