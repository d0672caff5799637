/* A stub of the driver's library, at its very edge: what the file named by FAKE_NVML says, each function answers.
 *
 * One word a line: "gpus=2", "FUNCTION=CODE" (NVML's error codes), "FUNCTION=hang", "FUNCTION=crash", "mig=2", "unlike=1" (each
 * has a name of its own), "gib1=24" (memory of GPU 1).
 * The file is read anew at every call, so that a driver can fall ill while it is watched.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_t;

static int setting(const char *name, int otherwise) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[200];
    size_t length = strlen(name);
    int value = otherwise;
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, name, length) || line[length] != '=') continue;
        if (!strncmp(line + length + 1, "hang", 4)) { fclose(file); for (;;) pause(); }
        if (!strncmp(line + length + 1, "crash", 5)) { signal(SIGSEGV, SIG_DFL); raise(SIGSEGV); }
        value = atoi(line + length + 1);
    }
    if (file) fclose(file);
    return value;
}

#define ANSWER(name) do { int code = setting(name, 0); if (code) return code; } while (0)
#define INDEX(handle) ((int)(long)(handle) % 100 - 1)
#define IS_MIG(handle) ((long)(handle) > 100)

int nvmlInitWithFlags(unsigned flags) { ANSWER("init"); return 0; }
int nvmlShutdown(void) { ANSWER("shutdown"); return 0; }
const char *nvmlErrorString(int code) { return "fake\033[31merror"; }
int nvmlDeviceGetCount_v2(unsigned *count) { ANSWER("count"); *count = setting("gpus", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    char name[40];
    sprintf(name, "handle%u", index);
    ANSWER(name);
    *handle = (void *)(long)(index + 1);
    return 0;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    ANSWER("uuid");
    snprintf(text, size, "%s-%ld", IS_MIG(handle) ? "MIG" : "GPU", (long)handle);
    return 0;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    ANSWER("name");
    if (setting("unlike", 0)) return snprintf(text, size, "Fake %d", INDEX(handle)) < 0;
    snprintf(text, size, setting("evil", 0) == 2 ? "bad \377 UTF-8" : setting("evil", 0) ? "Evil \033]52;c;aGk=\a GPU" : "Fake H100");
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    ANSWER("memory");
    char name[40];
    sprintf(name, "gib%d", INDEX(handle));
    memory->total = (unsigned long long)setting(name, 80) << 30; memory->used = (unsigned long long)(INDEX(handle) + 1) << 30; memory->free = memory->total - memory->used;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
    ANSWER("rates");
    if (IS_MIG(handle)) return 3;
    rates->gpu = setting("busy", 97);
    return 0;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { ANSWER("power"); *milliwatts = 350500; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) { ANSWER("limit"); *milliwatts = 700000; return 0; }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) { ANSWER("temperature"); *celsius = 65; return 0; }
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *bits) {
    ANSWER("reasons");
    if (IS_MIG(handle)) return 3;
    *bits = setting("bits", 1);
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *bits) {
    ANSWER("oldreasons");
    *bits = setting("bits", 1);
    return 0;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    ANSWER("migmode");
    *current = *pending = setting("mig", 0) > 0;
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    if ((int)index >= setting("mig", 0)) return 6;
    *instance = (void *)((long)handle + 100 * (index + 1));
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *processes) {
    ANSWER("processes");
    unsigned there = setting("running", 2);
    if (!there) { *count = 0; return 0; }
    if (!processes || *count < there) { *count = there; return 7; }
    *count = there;
    for (unsigned i = 0; i < there; i++) {
        memset(&processes[i], 0, sizeof processes[i]);
        processes[i].pid = 4000 + i;
        processes[i].used = setting("hidden", 0) ? ~0ULL : (unsigned long long)(i + 1) << 30;
    }
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, process_t *processes) {
    return nvmlDeviceGetComputeRunningProcesses_v3(handle, count, processes);
}
