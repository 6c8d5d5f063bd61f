using System.Runtime.InteropServices;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// Starts a program in a session of its own, with default signal dispositions, an empty signal mask, the given
/// three descriptors and nothing else. posix_spawn, because <c>Process</c> can neither make a session nor tell
/// the child's identity before it could have ended, and because fork is not safe in a managed program.
/// </summary>
internal static unsafe class Spawn
{
    private const short SetSigDef = 0x04, SetSigMask = 0x08, SetSid = 0x80;

    // glibc needs 336, 80 and 128 bytes; musl less. Room to spare costs nothing.
    private const int AttributesSize = 512, ActionsSize = 256, SignalSetSize = 256;

    /// <summary>Returns the pid, or 0 and the errno. A relative <paramref name="file"/> is looked up from <paramref name="cwd"/>.</summary>
    internal static (int Pid, int Errno) Start(
        string file, IReadOnlyList<string> argv, IReadOnlyDictionary<string, string> environment, string? cwd, int stdin, int stdout, int stderr)
    {
        var attributes = stackalloc byte[AttributesSize];
        var actions = stackalloc byte[ActionsSize];
        var signals = stackalloc byte[SignalSetSize];
        var strings = new List<nint>(argv.Count + environment.Count);
        var argvBlock = Block(argv, strings);
        var pairs = new List<string>(environment.Count);
        foreach (var name in environment.Keys)
            pairs.Add(name + "=" + environment[name]);
        var envBlock = Block(pairs, strings);
        try
        {
            Check(Native.SpawnAttributesInit(attributes));
            Check(Native.SpawnActionsInit(actions));
            _ = Native.SigFillSet(signals);
            Check(Native.SpawnAttributesSetSigDefault(attributes, signals));
            _ = Native.SigEmptySet(signals);
            Check(Native.SpawnAttributesSetSigMask(attributes, signals));
            Check(Native.SpawnAttributesSetFlags(attributes, SetSigDef | SetSigMask | SetSid));
            Check(Native.SpawnActionsAddDup2(actions, stdin, 0));
            Check(Native.SpawnActionsAddDup2(actions, stdout, 1));
            Check(Native.SpawnActionsAddDup2(actions, stderr, 2));
            if (cwd is not null)
                Check(Native.SpawnActionsAddChdir(actions, cwd));
            var errno = Native.PosixSpawn(out var pid, file, actions, attributes, (byte**)argvBlock, (byte**)envBlock);
            _ = Native.SpawnActionsDestroy(actions);
            _ = Native.SpawnAttributesDestroy(attributes);
            return errno == 0 ? (pid, 0) : (0, errno);
        }
        finally
        {
            foreach (var text in strings)
                Marshal.FreeCoTaskMem(text);
            NativeMemory.Free((void*)argvBlock);
            NativeMemory.Free((void*)envBlock);
        }
    }

    private static nint Block(IReadOnlyList<string> values, List<nint> strings)
    {
        var block = (nint*)NativeMemory.AllocZeroed((nuint)(values.Count + 1), (nuint)sizeof(nint));
        for (var i = 0; i < values.Count; i++)
        {
            // The kernel would cut the text at the NUL: what was validated would not be what runs.
            if (values[i].Contains('\0', StringComparison.Ordinal))
                throw new ArgumentException("an argument or environment value contains a NUL character");
            strings.Add(block[i] = Marshal.StringToCoTaskMemUTF8(values[i]));
        }
        return (nint)block;
    }

    private static void Check(int errno)
    {
        if (errno != 0)
            throw new IOException($"cannot prepare a process: {Marshal.GetPInvokeErrorMessage(errno)}");
    }
}
