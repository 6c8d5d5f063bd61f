using System.Globalization;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Execution;

/// <summary>What identifies this process among all processes of all machines (reliability X-03).</summary>
internal static class ProcessFacts
{
    public static string BootId { get; } = ReadFirstLine("/proc/sys/kernel/random/boot_id");

    public static string PidNamespace { get; } = OperatingSystem.IsLinux() ? new FileInfo("/proc/self/ns/pid").LinkTarget ?? "" : "";

    public static string MachineId { get; } = ReadFirstLine("/etc/machine-id") is { Length: > 0 } id ? id : Environment.MachineName;

    public static ExecutorInfo Describe(string executorId, string? application, string version) =>
        new(executorId, BootId, PidNamespace, Environment.ProcessId, StartTicks(), application, version);

    private static long StartTicks()
    {
        if (!OperatingSystem.IsLinux())
            return 0;
        // Field 22; the second field is the program's name in parentheses and may itself hold spaces and parentheses.
        string stat = File.ReadAllText("/proc/self/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return long.Parse(fields[19], CultureInfo.InvariantCulture);
    }

    private static string ReadFirstLine(string path) => File.Exists(path) ? File.ReadAllText(path).Trim() : "";
}
