/* A stand-in for NVIDIA's library: two GPUs, described by the environment.
 *
 *   FAKE_FREE_MIB   free memory of both GPUs, of 1000 MiB
 *   FAKE_PID        a process that holds 300 MiB of the first GPU
 */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
#define MIB (1024ull * 1024)

struct memory { unsigned version; unsigned long long total, reserved, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned instance, compute; };

static int environment(const char *name) {
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(unsigned long)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    return NOT_SUPPORTED;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strcpy(text, device == (void *)1 ? "GPU-aaaa" : "GPU-bbbb");
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    strcpy(text, "Fake 1000");
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    memory->total = 1000 * MIB;
    memory->reserved = 10 * MIB;
    memory->free = environment("FAKE_FREE_MIB") * MIB;
    memory->used = memory->total - memory->reserved - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *list) {
    unsigned have = device == (void *)1 && environment("FAKE_PID") ? 1 : 0, room = *count;
    *count = have;
    if (room < have) return INSUFFICIENT_SIZE;
    if (have) list[0] = (struct process){environment("FAKE_PID"), 300 * MIB, 0, 0};
    return SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *list) {
    return NOT_SUPPORTED;
}
