using System.Globalization;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>What is known about a recorded process now.</summary>
internal enum ProcessPresence
{
    /// <summary>It exists and may run.</summary>
    Running,
    /// <summary>It exists and is stopped (SIGSTOP, debugger): alive, but does nothing.</summary>
    Stopped,
    /// <summary>It has ended: gone, a zombie, another process with its number, or the machine was restarted.</summary>
    Dead,
    /// <summary>It was seen in another PID namespace; from here nothing can be said about it.</summary>
    Unknown,
}

/// <summary>
/// A process, told apart from a later one with the same number. The boot id covers restarts, the
/// namespace containers, the start time (clock ticks since boot) reuse of the number.
/// </summary>
/// <param name="BootId">The kernel's boot id.</param>
/// <param name="PidNamespace">The PID namespace, as <c>pid:[…]</c>.</param>
/// <param name="Pid">The number within that namespace.</param>
/// <param name="StartTicks">Start time in clock ticks since boot.</param>
internal sealed record ProcessIdentity(string BootId, string PidNamespace, int Pid, long StartTicks)
{
    private static readonly Lazy<(string Boot, string Namespace)> Here = new(() => (
        File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim(),
        new FileInfo("/proc/self/ns/pid").LinkTarget ?? "pid:[unknown]"));

    /// <summary>This process.</summary>
    public static ProcessIdentity Current { get; } = Of(Environment.ProcessId)
        ?? throw new IOException("cannot read /proc/self/stat; Drover needs a mounted /proc");

    /// <summary>The process that has this number now, or null.</summary>
    public static ProcessIdentity? Of(int pid) => ProcessTable.Read(pid) is { } entry ? Of(pid, entry.StartTicks) : null;

    internal static ProcessIdentity Of(int pid, long startTicks) => new(Here.Value.Boot, Here.Value.Namespace, pid, startTicks);

    /// <summary>Whether it exists, running or stopped. False also when it was seen in another PID namespace: ask <see cref="Look"/> where that matters.</summary>
    public bool IsAlive => Look() is ProcessPresence.Running or ProcessPresence.Stopped;

    /// <summary>What is known about it now.</summary>
    public ProcessPresence Look()
    {
        if (BootId != Here.Value.Boot)
            return ProcessPresence.Dead;
        if (PidNamespace != Here.Value.Namespace)
            return ProcessPresence.Unknown;
        if (ProcessTable.Read(Pid) is not { } entry || entry.StartTicks != StartTicks || entry.IsDead)
            return ProcessPresence.Dead;
        return entry.State is 'T' or 't' ? ProcessPresence.Stopped : ProcessPresence.Running;
    }

    /// <summary>Sends a signal (default SIGKILL) to exactly this process. False when it no longer exists or may not be signalled.</summary>
    public bool Kill(int signal = Native.SigKill) => IsAlive && Native.SignalExactly(Pid, signal, () => IsAlive);

    /// <summary>The form that is stored: <c>boot/namespace/pid/ticks</c>.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{BootId}/{PidNamespace}/{Pid}/{StartTicks}");

    /// <summary>Reads the stored form; null when it is not one.</summary>
    public static ProcessIdentity? Parse(string? text)
    {
        var parts = text?.Split('/') ?? [];
        return parts.Length == 4
            && int.TryParse(parts[2], NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
            && long.TryParse(parts[3], NumberStyles.None, CultureInfo.InvariantCulture, out var ticks)
            ? new(parts[0], parts[1], pid, ticks)
            : null;
    }
}
