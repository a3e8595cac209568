// Branches of a conversation: where a question was asked otherwise or an answer written anew, the
// chat goes on in several ways, each of which is a list of all messages up to its last answer.
//
// Ways share the messages that they have in common, as the same objects.

export class Branches {
  #ways = [];

  /** The ways of stored completions, the earliest first; a way that a later one continues is dropped. */
  static of(ways) {
    const branches = new Branches(),
      keys = new Map(ways.map((way) => [way, way.map(keyOf)]));
    const isBegin = (way, other) => keys.get(way).every((key, at) => keys.get(other)[at] === key);
    for (const [place, way] of ways.entries()) {
      if (ways.slice(place + 1).some((other) => isBegin(way, other))) continue;
      branches.share(way);
      branches.add(way);
    }
    return branches;
  }

  add(way) {
    if (!this.#ways.includes(way)) this.#ways.push(way);
  }

  /** The messages at a place of a way, and of all ways that are the same before it. */
  at(way, place) {
    const others = this.#from(way, place).map((other) => other[place]);
    return [...new Set(others)].filter(Boolean);
  }

  /** The latest way through the sibling `step` places beside this way's message. */
  beside(way, place, step) {
    const messages = this.at(way, place),
      next = messages[messages.indexOf(way[place]) + step];
    return this.#from(way, place).findLast((other) => other[place] === next);
  }

  /** The ids of the stored completions that hold the ways. */
  get storedIds() {
    return this.#ways.map((way) => way.at(-1)?.storedId);
  }

  #from(way, place) {
    const isSame = (other) => way.slice(0, place).every((message, at) => other[at] === message);
    return this.#ways.filter(isSame);
  }

  /** Puts messages of earlier ways in the place of the same ones of this one. */
  share(way) {
    for (let place = 0; place < way.length; place += 1) {
      const same = this.at(way, place).find((one) => keyOf(one) === keyOf(way[place]));
      if (!same) return;
      way[place] = same;
    }
  }
}

const keyOf = ({ role, content, pictures, calls, callId }) =>
  JSON.stringify([role, content, pictures ?? [], (calls ?? []).map(({ id }) => id), callId]);
