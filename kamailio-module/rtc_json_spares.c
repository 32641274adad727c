/* rtc_json_spares.c: spare fragments in Kamailio's memory, so that it finds free memory without a search.
 *
 * Kamailio's own memory manager (qm) has a list of free fragments for each size, and joins what is freed with its free neighbours.
 * All that a message took is freed after it, so it becomes one large fragment again, and for each header field of the next message
 * some two thousand empty lists are walked through to find that one; in shared memory, for each piece of a transaction, under a lock that
 * all processes want. It was a third of the processor time of a call.
 * A fragment between two that are in use has nothing to be joined with: it stays in the list of its size.
 */
#include <string.h>

#include "core/dprint.h"
#include "core/mem/mem.h"
#include "core/mem/shm_mem.h"

#include "rtc_json_mod.h"

/* how far behind a fragment the next one may begin: qm has 32 or 104 bytes between two, as it was built */
#define BEHIND 128
/* with less private memory than this to begin with, nothing is laid out there: some 0.4 MB are kept */
#define ROOM_WANTED (5UL << 19)
/* Of shared memory one part of so many is cut into chunks. Transactions stay for seconds, so they are as many as there are calls: their small
 * pieces are cut from the chunks, for whose rests the walk is short. */
#define SHARED_PART 32
#define CHUNK 2048

typedef struct pool
{
	const char *manager;
	void *(*get)(size_t size);
	void (*put)(void *piece);
	unsigned long (*left)(void);
} pool_t;

/* What is held while all is laid out. A wall is such a piece, too, and never freed. */
typedef struct piece
{
	struct piece *next;
} piece_t;

typedef struct layout
{
	const pool_t *pool;
	piece_t *spares, *holes;
	unsigned long floor; /* what must be left */
	unsigned long laid;
} layout_t;

static void *pkg_get(size_t size)
{
	return pkg_malloc(size);
}

static void pkg_put(void *piece)
{
	pkg_free(piece);
}

static unsigned long pkg_left(void)
{
	return pkg_available();
}

static void *shm_get(size_t size)
{
	return shm_malloc(size);
}

static void shm_put(void *piece)
{
	shm_free(piece);
}

static unsigned long shm_left(void)
{
	return shm_available();
}

/* Takes a fragment, and one right behind it that stays. 0: there is no room for more. */
static int lay(layout_t *l, size_t size)
{
	piece_t *spare = l->pool->left() > l->floor ? l->pool->get(size) : NULL, *wall;

	if(spare == NULL)
		return 0;
	spare->next = l->spares;
	l->spares = spare;
	while(l->pool->left() > l->floor && (wall = l->pool->get(sizeof(piece_t))) != NULL) {
		if((char *)wall > (char *)spare && (char *)wall < (char *)spare + size + BEHIND) {
			l->laid++;
			return 1;
		}
		/* the smallest fragment there is, somewhere else: closed until the end */
		wall->next = l->holes;
		l->holes = wall;
	}
	return 0;
}

static void release(const pool_t *pool, piece_t *list)
{
	piece_t *next;

	for(; list != NULL; list = next) {
		next = list->next;
		pool->put(list);
	}
}

/* Not before all is laid out: the walls would take them. */
static void finish(layout_t *l, const char *memory)
{
	release(l->pool, l->spares);
	release(l->pool, l->holes);
	LM_DBG("%lu spare fragments in %s memory\n", l->laid, memory);
}

/* The other managers look for nothing, or join nothing. */
static int searches(const pool_t *pool)
{
	return pool->manager != NULL && strcmp(pool->manager, "q_malloc") == 0;
}

void rtcj_spares_private(void)
{
	/* a size that has none left takes of the next, so the steps may grow with what they waste */
	static const struct
	{
		size_t from, to, step;
		int each;
	} kinds[] = {{1152, 4096, 128, 2}, {272, 1024, 16, 4}, {16, 256, 8, 8}};
	const pool_t pool = {_pkg_root.mname, pkg_get, pkg_put, pkg_left};
	layout_t l = {&pool, NULL, NULL, pkg_left() / 2, 0};
	size_t kind, size;
	int n, room = 1;

	if(!searches(&pool))
		return;
	if(pkg_left() < ROOM_WANTED) {
		LM_INFO("little private memory (-M): no spare fragments\n");
		return;
	}
	/* the largest first: the walls then close all holes before the many small spares could fall into them */
	for(kind = 0; room && kind < sizeof(kinds) / sizeof(kinds[0]); kind++)
		for(size = kinds[kind].to; room && size >= kinds[kind].from; size -= kinds[kind].step)
			for(n = 0; room && n < kinds[kind].each; n++)
				room = lay(&l, size);
	finish(&l, "private");
}

void rtcj_spares_shared(void)
{
	const pool_t pool = {_shm_root.mname, shm_get, shm_put, shm_left};
	layout_t l = {&pool, NULL, NULL, shm_left() / 2, 0};
	unsigned long chunks = shm_left() / SHARED_PART / CHUNK;

	if(!searches(&pool))
		return;
	while(l.laid < chunks && lay(&l, CHUNK))
		;
	finish(&l, "shared");
}
