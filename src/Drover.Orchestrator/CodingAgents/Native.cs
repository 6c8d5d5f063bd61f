using System.Runtime.InteropServices;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>The few Linux calls that .NET does not offer. Return values are the raw ones of libc.</summary>
internal static unsafe partial class Native
{
    internal const int SigHup = 1, SigInt = 2, SigQuit = 3, SigKill = 9, SigPipe = 13, SigTerm = 15, SigCont = 18, SigStop = 19;
    internal const int Eintr = 4, Etxtbsy = 26, Enosys = 38;
    internal const int OpenCloseOnExec = 0x80000;
    private const int PrSetChildSubreaper = 36;
    private const int FSetFd = 2, FdCloseOnExec = 1;
    private const nint SigIgnore = 1;
    private const long SysPidfdSendSignal = 424, SysPidfdOpen = 434;

    [LibraryImport("libc", EntryPoint = "getpid")] internal static partial int GetPid();
    [LibraryImport("libc", EntryPoint = "getppid")] internal static partial int GetParentPid();
    [LibraryImport("libc", EntryPoint = "setsid")] internal static partial int SetSid();
    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)] internal static partial int Kill(int pid, int signal);
    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8)] private static partial int Open(string path, int flags);
    [LibraryImport("libc", EntryPoint = "read")] private static partial nint Read(int fd, byte* buffer, nint count);
    [LibraryImport("libc", EntryPoint = "close")] internal static partial int Close(int fd);
    [LibraryImport("libc", EntryPoint = "waitpid", SetLastError = true)] internal static partial int WaitPid(int pid, out int status, int options);
    [LibraryImport("libc", EntryPoint = "pipe2", SetLastError = true)] private static partial int Pipe2(int* fds, int flags);
    [LibraryImport("libc", EntryPoint = "signal")] private static partial nint Signal(int signal, nint handler);
    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)] private static partial int PrCtl(int option, nuint a, nuint b, nuint c, nuint d);
    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)] private static partial int Fcntl(int fd, int command, int argument);
    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)] private static partial long Syscall(long number, long a, long b, long c, long d);

    [LibraryImport("libc", EntryPoint = "posix_spawn", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int PosixSpawn(out int pid, string path, byte* actions, byte* attributes, byte** argv, byte** envp);
    [LibraryImport("libc", EntryPoint = "posix_spawnattr_init")] internal static partial int SpawnAttributesInit(byte* attributes);
    [LibraryImport("libc", EntryPoint = "posix_spawnattr_destroy")] internal static partial int SpawnAttributesDestroy(byte* attributes);
    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setflags")] internal static partial int SpawnAttributesSetFlags(byte* attributes, short flags);
    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigdefault")] internal static partial int SpawnAttributesSetSigDefault(byte* attributes, byte* set);
    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigmask")] internal static partial int SpawnAttributesSetSigMask(byte* attributes, byte* set);
    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_init")] internal static partial int SpawnActionsInit(byte* actions);
    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_destroy")] internal static partial int SpawnActionsDestroy(byte* actions);
    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_adddup2")] internal static partial int SpawnActionsAddDup2(byte* actions, int fd, int target);
    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addchdir_np", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int SpawnActionsAddChdir(byte* actions, string path);
    [LibraryImport("libc", EntryPoint = "sigfillset")] internal static partial int SigFillSet(byte* set);
    [LibraryImport("libc", EntryPoint = "sigemptyset")] internal static partial int SigEmptySet(byte* set);

    /// <summary>Orphans of the whole tree become children of this process instead of init's.</summary>
    internal static bool BecomeSubreaper() => PrCtl(PrSetChildSubreaper, 1, 0, 0, 0) == 0;

    internal static void Ignore(int signal) => Signal(signal, SigIgnore);

    /// <summary>Both ends are close-on-exec: a child sees only what its spawn duplicates onto 0, 1 and 2.</summary>
    internal static (int Read, int Write) Pipe()
    {
        var fds = stackalloc int[2];
        return Pipe2(fds, OpenCloseOnExec) == 0
            ? (fds[0], fds[1])
            : throw new IOException($"cannot make a pipe: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");
    }

    /// <summary>
    /// A small file of /proc, or null when it cannot be read: the process has ended, or is another user's. Both are
    /// ordinary, and an exception for each foreign process would make a scan slow.
    /// </summary>
    internal static byte[]? ReadFile(string path)
    {
        var fd = Open(path, OpenCloseOnExec);
        if (fd < 0)
            return null;
        var buffer = new byte[8192];
        var filled = 0;
        nint read;
        do
        {
            if (filled == buffer.Length)
                Array.Resize(ref buffer, buffer.Length * 2);
            fixed (byte* start = buffer)
                read = Read(fd, start + filled, buffer.Length - filled);
            filled += (int)Math.Max(read, 0);
        }
        while (read > 0);
        _ = Close(fd);
        Array.Resize(ref buffer, filled);
        return read < 0 ? null : buffer;
    }

    /// <summary>Marks every descriptor above 2 close-on-exec, also those that came open from a careless parent.</summary>
    internal static void CloseAllOnExec()
    {
        foreach (var entry in Directory.EnumerateFileSystemEntries("/proc/self/fd"))
        {
            if (int.TryParse(Path.GetFileName(entry), out var fd) && fd > 2)
                _ = Fcntl(fd, FSetFd, FdCloseOnExec); // fails only for the listing's own, already closed, descriptor
        }
    }

    /// <summary>
    /// Signals a process that <paramref name="isTheOne"/> still recognises once its pidfd is held, so that a pid
    /// that was reused between look and kill is never hit. False when it was gone or another.
    /// </summary>
    internal static bool SignalExactly(int pid, int signal, Func<bool> isTheOne)
    {
        var fd = Syscall(SysPidfdOpen, pid, 0, 0, 0);
        if (fd < 0)
        {
            if (Marshal.GetLastPInvokeError() != Enosys)
                return false;
            return isTheOne() && Kill(pid, signal) == 0; // kernel older than 5.3
        }
        try
        {
            return isTheOne() && Syscall(SysPidfdSendSignal, fd, signal, 0, 0) == 0;
        }
        finally
        {
            _ = Close((int)fd);
        }
    }
}
