/** Receives the value of an event. */
export type Handler<T> = (value: T) => void;

/** Something that has a state and tells of events. `Events` maps the name of each event to the type of its value. */
export abstract class Emitter<Events extends { state: string }> {
  /** Where it stands; each change is an event `state`. */
  abstract state: Events['state'];
  /** @internal */
  _handlers: { [K in keyof Events]?: Set<Handler<Events[K]>> } = {};

  /** Calls `handler` at every event of that name; the function returned takes it off again. */
  on<K extends keyof Events>(name: K, handler: Handler<Events[K]>): () => boolean {
    const handlers = (this._handlers[name] ??= new Set());
    handlers.add(handler);
    return () => handlers.delete(handler);
  }

  /**
   * @internal a handler runs in a microtask of its own: in order, but never in the middle of a step of ours, and its
   * faults stop nothing and are reported as the page's own
   */
  _emit<K extends keyof Events>(name: K, value: Events[K]): void {
    this._handlers[name]?.forEach((handler) => queueMicrotask(() => handler(value)));
  }

  /** @internal */
  _setState(state: Events['state']): void {
    if (this.state !== state) this._emit('state', (this.state = state));
  }
}
