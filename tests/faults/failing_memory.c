/* failing_memory.c: a Kamailio module for tests. It stands between Kamailio and its memory managers and lets the n-th allocation fail.
 *
 * What is to fail is written into a file (parameter "control") that all processes have mapped; what came of it is read there.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/dprint.h"
#include "core/mem/pkg.h"
#include "core/mem/shm_mem.h"
#include "core/sr_module.h"

MODULE_VERSION

/* The file. The test writes `from` and `until` first, then `pool`. */
typedef struct control
{
	atomic_int pool;  /* 0: nothing, 1: shared memory, 2: private memory */
	atomic_int from;  /* the first allocation that fails; 0: only count */
	atomic_int until; /* the last that fails */
	atomic_int count; /* allocations since then */
	atomic_int failed;
	char site[228]; /* where the first that failed stands */
} control_t;

static char *control_file;
/* modules whose allocations count, each with a comma behind it; empty: all */
static char *counted = "";
static control_t *control;
static sr_shm_api_t shm;
static sr_pkg_api_t pkg;

static int counts(const char *mname)
{
	char wanted[64];

	if(counted[0] == '\0')
		return 1;
	snprintf(wanted, sizeof(wanted), "%s,", mname != NULL ? mname : "");
	return strstr(counted, wanted) != NULL;
}

static int fails(int pool, const char *file, const char *func, unsigned int line, const char *mname)
{
	int number;

	if(atomic_load(&control->pool) != pool || !counts(mname))
		return 0;
	number = atomic_fetch_add(&control->count, 1) + 1;
	if(atomic_load(&control->from) == 0 || number < atomic_load(&control->from) || number > atomic_load(&control->until))
		return 0;
	if(atomic_fetch_add(&control->failed, 1) == 0)
		snprintf(control->site, sizeof(control->site), "%s %s:%u %s()", mname, file, line, func);
	return 1;
}

#define ARGS const char *file, const char *func, unsigned int line, const char *mname
#define FAIL(pool) if(fails(pool, file, func, line, mname)) return NULL

static void *shm_plain(void *block, size_t size, ARGS)
{
	FAIL(1);
	return shm.xmalloc(block, size, file, func, line, mname);
}

static void *shm_zeroed(void *block, size_t size, ARGS)
{
	FAIL(1);
	return shm.xmallocxz(block, size, file, func, line, mname);
}

static void *shm_unsafe(void *block, size_t size, ARGS)
{
	FAIL(1);
	return shm.xmalloc_unsafe(block, size, file, func, line, mname);
}

static void *shm_again(void *block, void *p, size_t size, ARGS)
{
	FAIL(1);
	return shm.xrealloc(block, p, size, file, func, line, mname);
}

static void *pkg_plain(void *block, size_t size, ARGS)
{
	FAIL(2);
	return pkg.xmalloc(block, size, file, func, line, mname);
}

static void *pkg_zeroed(void *block, size_t size, ARGS)
{
	FAIL(2);
	return pkg.xmallocxz(block, size, file, func, line, mname);
}

static void *pkg_again(void *block, void *p, size_t size, ARGS)
{
	FAIL(2);
	return pkg.xrealloc(block, p, size, file, func, line, mname);
}

/* Before the fork, so that every process has it. */
static int mod_init(void)
{
	int fd = control_file != NULL ? open(control_file, O_RDWR) : -1;

	if(fd < 0 || ftruncate(fd, sizeof(*control)) < 0) {
		LM_ERR("the control file cannot be used\n");
		return -1;
	}
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if(control == MAP_FAILED) {
		LM_ERR("the control file cannot be mapped\n");
		return -1;
	}
	shm = _shm_root;
	pkg = _pkg_root;
	_shm_root.xmalloc = shm_plain;
	_shm_root.xmallocxz = shm_zeroed;
	_shm_root.xmalloc_unsafe = shm_unsafe;
	_shm_root.xrealloc = shm_again;
	_pkg_root.xmalloc = pkg_plain;
	_pkg_root.xmallocxz = pkg_zeroed;
	_pkg_root.xrealloc = pkg_again;
	return 0;
}

static param_export_t params[] = {
	{"control", PARAM_STRING, &control_file},
	{"modules", PARAM_STRING, &counted},
	{0, 0, 0},
};

struct module_exports exports = {
	.name = MOD_NAME,
	.dlflags = DEFAULT_DLFLAGS,
	.params = params,
	.init_mod_f = mod_init,
};
